# The minimizers on functions with known minima; subproblems against their optimality conditions in BigFloat.

using Test, LinearAlgebra, Random
using MLPGF
using MLPGF: AbstractNet, MinimizeMethod, Subproblem, ShiftedSolver, Objective, reduce!, solve_subproblem!,
    make_state, step!, MinimizeTrace, record!, finish!, TRACE_LENGTH, Stop, Monitor, elapsed
import MLPGF: loss, value_and_gradient!, gradient!, hessian!, hvp!, n_params

"""
A function of a few variables, written once over any number type; its derivatives by nested dual numbers
(`Jet`: value, gradient, Hessian), so that no hand-written derivative of the test can be wrong by itself.
"""
struct TestFunction{T,F} <: AbstractNet{T}
    f::F
    P::Int
end
TestFunction{T}(f::F, P) where {T,F} = TestFunction{T,F}(f, P)
n_params(net::TestFunction) = net.P

struct Dual{V} <: Number
    v::V
    d::V
end
Base.:+(a::Dual, b::Dual) = Dual(a.v + b.v, a.d + b.d)
Base.:-(a::Dual, b::Dual) = Dual(a.v - b.v, a.d - b.d)
Base.:-(a::Dual) = Dual(-a.v, -a.d)
Base.:*(a::Dual, b::Dual) = Dual(a.v * b.v, a.v * b.d + a.d * b.v)
Base.:*(a::Real, b::Dual) = Dual(a * b.v, a * b.d)
Base.:*(b::Dual, a::Real) = a * b
Base.:+(a::Real, b::Dual) = Dual(a + b.v, b.d)
Base.:+(b::Dual, a::Real) = a + b
Base.:-(b::Dual, a::Real) = Dual(b.v - a, b.d)
Base.:-(a::Real, b::Dual) = Dual(a - b.v, -b.d)
Base.exp(a::Dual) = (e = exp(a.v); Dual(e, e * a.d))
Base.inv(a::Dual) = (i = inv(a.v); Dual(i, -(i * i) * a.d))
Base.log1p(a::Dual) = Dual(log1p(a.v), a.d * inv(1 + a.v))
square(a) = a * a

# Second derivatives in directions i and j come from a dual number of dual numbers.
nested(x::T, i, j, k) where {T} = Dual(Dual(x, T(k == i)), Dual(T(k == j), zero(T)))
loss(net::TestFunction{T}, x) where {T} = T(net.f(x))
function value_and_gradient!(g, net::TestFunction{T}, x) where {T}
    for i in 1:net.P
        g[i] = net.f([Dual(x[k], T(k == i)) for k in 1:net.P]).d
    end
    return loss(net, x)
end
gradient!(g, net::TestFunction, x) = (value_and_gradient!(g, net, x); g)
function hessian!(H, net::TestFunction, x)
    for i in 1:net.P, j in 1:i
        H[i, j] = H[j, i] = net.f([nested(x[k], i, j, k) for k in 1:net.P]).d.d
    end
    return H
end

function hvp!(y, net::TestFunction, x, v)
    y .= hessian!(zeros(eltype(x), net.P, net.P), net, x) * v
    return y
end

"½ xᵀAx: all evaluations free of allocation."
struct Quadratic{T} <: AbstractNet{T}
    A::Matrix{T}
end
n_params(net::Quadratic) = size(net.A, 1)
function value_and_gradient!(g::Vector{T}, net::Quadratic{T}, x::Vector{T}) where {T}
    s = zero(T)
    for i in eachindex(x)
        gi = zero(T)
        for j in eachindex(x)
            gi += net.A[i, j] * x[j]
        end
        g[i] = gi
        s += gi * x[i]
    end
    return s / 2
end
hessian!(H::Matrix, net::Quadratic, x) = copyto!(H, net.A)

"x₁⁴/4 + … allocation-free and not quadratic: every trial differs from its model."
struct Quartic{T} <: AbstractNet{T}
    P::Int
end
n_params(net::Quartic) = net.P
function value_and_gradient!(g::Vector{T}, net::Quartic{T}, x::Vector{T}) where {T}
    s = zero(T)
    for i in eachindex(x)
        nxt = i == net.P ? 1 : i + 1
        g[i] = zero(T)
    end
    for i in eachindex(x)
        nxt = i == net.P ? 1 : i + 1
        r = x[nxt] - x[i]^2 / 2
        s += r^2 + x[i]^4 / 100
        g[nxt] += 2r
        g[i] += -2r * x[i] + x[i]^3 / 25
    end
    return s
end
function hessian!(H::Matrix{T}, net::Quartic{T}, x::Vector{T}) where {T}
    fill!(H, zero(T))
    for i in eachindex(x)
        nxt = i == net.P ? 1 : i + 1
        r = x[nxt] - x[i]^2 / 2
        H[nxt, nxt] += 2
        H[nxt, i] -= 2 * x[i]
        H[i, nxt] -= 2 * x[i]
        H[i, i] += 2 * x[i]^2 - 2r + 3 * x[i]^2 / 25
    end
    return H
end

function hvp!(y::Vector{T}, net::Quartic{T}, x::Vector{T}, v::Vector{T}) where {T}
    fill!(y, zero(T))
    for i in eachindex(x)
        nxt = i == net.P ? 1 : i + 1
        r = x[nxt] - x[i]^2 / 2
        y[nxt] += 2 * v[nxt] - 2 * x[i] * v[i]
        y[i] += (2 * x[i]^2 - 2r + 3 * x[i]^2 / 25) * v[i] - 2 * x[i] * v[nxt]
    end
    return y
end

rosenbrock(x) = sum(100 * square(x[i+1] - square(x[i])) + square(1 - x[i]) for i in 1:length(x)-1)
powell(x) = square(x[1] + 10 * x[2]) + 5 * square(x[3] - x[4]) + square(square(x[2] - 2 * x[3])) +
    10 * square(square(x[1] - x[4]))
wood(x) = 100 * square(square(x[1]) - x[2]) + square(x[1] - 1) + square(x[3] - 1) +
    90 * square(square(x[3]) - x[4]) + 10.1 * (square(x[2] - 1) + square(x[4] - 1)) +
    19.8 * ((x[2] - 1) * (x[4] - 1))
beale(x) = square(1.5 - x[1] + x[1] * x[2]) + square(2.25 - x[1] + x[1] * square(x[2])) +
    square(2.625 - x[1] + x[1] * (square(x[2]) * x[2]))
saddle(x) = square(x[1]) - square(x[2]) + square(square(x[2]))

"Mean squared error of two softplus units on 21 points whose targets the same architecture produced."
softplus_unit(h) = log1p(exp(h))
function regression(x)
    truth = (1.0, -0.5, 0.8, -1.5, 0.3, -0.6)
    f(p, z) = p[3] * softplus_unit(p[1] * z + p[2]) + p[6] * softplus_unit(p[4] * z + p[5])
    return (1 / 21) * sum(square(f(x, z) - f(truth, z)) for z in -3:0.3:3)
end

const METHODS = (AutoMinimizer(), NewtonLBFGS(), NewtonTrustRegion(), Newton(), NewtonKrylov(), BFGS(), LBFGS())

@testset "what is not finite is seen, $T" for T in (Float32, Float64, BigFloat), n in (1, 3, 9, 16, 33)
    @test MLPGF.all_finite(ones(T, n, n)) && MLPGF.all_finite(fill(floatmax(T), n, n)) && MLPGF.all_finite(zeros(T, 0))
    @test !any(MLPGF.all_finite(T[i == k ? bad : 1 for i in 1:n^2]) for k in 1:n^2 for bad in (NaN, Inf, -Inf))
end

@testset "known minima: $(m)" for m in METHODS
    # (function, start, minimiser or nothing, minimum, bound on the loss above it)
    problems = [
        ("rosenbrock", rosenbrock, [-1.2, 1.0], [1.0, 1.0], 0.0, 1e-25),
        # the chain has a local minimum near 3.98
        ("rosenbrock 10", rosenbrock, repeat([-1.2, 1.0], 5), nothing, 0.0, 5.0),
        ("powell", powell, [3.0, -1.0, 0.0, 1.0], zeros(4), 0.0, 1e-14),
        ("wood", wood, [-3.0, -1.0, -3.0, -1.0], ones(4), 0.0, 1e-25),
        ("beale", beale, [1.0, 1.0], [3.0, 0.5], 0.0, 1e-25),
        ("quartic", x -> square(square(x[1] - 2)), [0.0], [2.0], 0.0, 1e-15),
        ("saddle", saddle, [1.0, 0.1], nothing, -0.25, 1e-15),
        ("regression", regression, [1.1, -0.4, 0.9, -1.4, 0.2, -0.7], nothing, 0.0, 1e-22),
        ("far minimum", x -> square(x[1] - 1e6) + 3, [0.0], [1e6], 3.0, 1e-12),
    ]
    for (label, f, x0, minimiser, minimum, above) in problems
        @testset "$label" begin
            start = copy(x0)
            r = minimize(TestFunction{Float64}(f, length(x0)), x0; optim_solver=m, maxiterations=2000)
            @test x0 == start
            # Powell's minimum has a singular Hessian: the loss goes on falling far below 1e-30.
            @test r.stopped_by in (Stop.roundoff, Stop.min_gnorm) || label == "powell" && r.loss < 1e-30
            @test abs(r.loss - minimum) <= above
            @test r.loss == f(r.x)
            minimiser === nothing || @test norm(r.x - minimiser) <= 1e-3 * max(1, norm(minimiser))
            @test r.gnorm <= 1e-8
        end
    end
end

@testset "ill-conditioned quadratic, condition 1e16" begin
    Q = Matrix(qr(randn(MersenneTwister(5), 12, 12)).Q)
    A = Q * Diagonal(exp10.(range(-8, 8, length=12))) * Q'
    net = Quadratic{Float64}((A + A') / 2)
    r = minimize(net, Q * ones(12); maxiterations=1000)
    @test r.stopped_by in (Stop.roundoff, Stop.min_gnorm)
    @test r.gnorm <= 1e-8         # eps * ‖A‖
    diagonal = Quadratic{Float64}(Matrix(Diagonal(exp10.(range(-8, 8, length=12)))))
    r = minimize(diagonal, ones(12); maxiterations=1000)
    @test r.loss <= 1e-20
end

@testset "quadratic convergence to rounding level" begin
    r = minimize(TestFunction{Float64}(rosenbrock, 2), [1.05, 1.1])
    @test r.gnorm <= 1e-13 && r.loss <= 1e-28
    @test r.nhev <= 20
    offset = minimize(TestFunction{Float64}(x -> 7.5 + rosenbrock(x), 2), [1.05, 1.1])
    @test offset.gnorm <= 1e-12      # the loss is blind below 1e-15: the gradient goes on
    @test offset.stopped_by in (Stop.roundoff, Stop.min_gnorm)
end

@testset "saddles are left" begin
    net = TestFunction{Float64}(saddle, 2)
    for start in ([0.0, 0.0], [1.0, 0.0], [1e-12, 1e-14])
        r = minimize(net, start)
        @test r.loss ≈ -0.25 atol = 1e-15
        @test abs(r.x[2]) ≈ sqrt(0.5) atol = 1e-7
    end
    # the user's tolerance is met at the start, but the Hessian is indefinite there
    @test minimize(net, [0.0, 0.0]; min_gnorm=1e-3).loss < -0.2
    @test minimize(net, [0.0, 0.0]; min_gnorm=1e-3, optim_solver=BFGS()).stopped_by == Stop.min_gnorm
end

@testset "minimum at infinity, overflow: $m" for m in METHODS
    r = minimize(TestFunction{Float64}(x -> exp(-x[1]), 1), [0.0]; optim_solver=m, maxiterations=5000)
    @test r.x[1] > 30 && isfinite(r.loss) && all(isfinite, r.x)
    r = minimize(TestFunction{Float64}(x -> -1 * x[1], 1), [0.0]; optim_solver=m, maxiterations=2000)
    @test isfinite(r.loss) && all(isfinite, r.x) && r.loss < -1e3
    @test r.stopped_by in (Stop.maxiterations, Stop.roundoff)
    # a wall near x = 2, behind it infinity
    walled = TestFunction{Float64}(x -> -1 * x[1] + exp(1000 * (x[1] - 2)), 1)
    r = minimize(walled, [0.0]; optim_solver=m, maxiterations=2000)
    @test isfinite(r.loss) && r.loss < -1.9 && r.x[1] < 2
end

@testset "trivial problems: $m" for m in METHODS
    constant = TestFunction{Float64}(x -> 3.0 + 0.0 * x[1], 2)
    r = minimize(constant, [1.0, 2.0]; optim_solver=m)
    @test r.stopped_by == Stop.min_gnorm && r.x == [1.0, 2.0] && r.loss == 3.0 && r.gnorm == 0.0
    bowl = TestFunction{Float64}(x -> square(x[1]), 1)
    r = minimize(bowl, [0.0]; optim_solver=m)
    @test r.stopped_by == Stop.min_gnorm && r.iterations == 0
    r = minimize(bowl, [1e-3]; optim_solver=m)
    @test r.loss <= 1e-30
end

@testset "not finite at the start: $m" for m in METHODS
    r = minimize(TestFunction{Float64}(x -> NaN * x[1], 1), [1.0]; optim_solver=m)
    @test r.stopped_by == Stop.diverged && r.iterations == 0
    r = minimize(TestFunction{Float64}(x -> exp(1000.0 * x[1]), 1), [1.0]; optim_solver=m)
    @test r.stopped_by == Stop.diverged && r.x == [1.0]
end

@testset "stop reasons: $m" for m in METHODS
    net = TestFunction{Float64}(rosenbrock, 2)
    x0 = [-1.2, 1.0]
    go(; options...) = minimize(net, x0; optim_solver=m, options...)
    @test go(maxiterations=3).stopped_by == Stop.maxiterations
    @test go(maxiterations=3).iterations == 3
    @test go(maxiterations=0).x == x0
    @test go(maxtime=0).stopped_by == Stop.maxtime
    r = go(min_gnorm=1e-5)
    @test r.stopped_by == Stop.min_gnorm && 1e-13 < r.gnorm <= 1e-5
    r = go(minloss=1e-3)
    @test r.stopped_by == Stop.minloss && r.loss <= 1e-3
    @test go(minloss=0).stopped_by in (Stop.roundoff, Stop.min_gnorm)
    for reason in (Stop.interrupted, Stop.callback)
        seen = Tuple{Float64,Vector{Float64}}[]
        watch(phase, i, t, l, gnorm, x) = (push!(seen, (l, copy(x))); i >= 5 ? reason : Stop.running)
        monitor = Monitor(watch; interval=0.0)
        r = go(monitor=monitor)
        @test r.stopped_by == reason && r.iterations == 5
        @test r.loss == minimum(first, seen)
        @test r.x == last(seen[argmin(first.(seen))])
    end
end

"Every iteration worse than the start."
struct Wanderer <: MinimizeMethod end
mutable struct WandererState
    x::Vector{Float64}
    loss::Float64
    gnorm::Float64
end
MLPGF.method_name(::Wanderer) = "Wanderer"
MLPGF.make_state(::Wanderer, ::Objective, x0) = WandererState(copy(x0), 1.0, 1.0)
MLPGF.at_saddle!(::WandererState, ::Objective) = false
function MLPGF.step!(s::WandererState, ::Objective, ::Wanderer)
    s.x[1] += 1
    s.loss += s.x[1] == 4 ? -2.5 : 1.0
    s.gnorm = 2.0
    return s.x[1] == 9 ? throw(MLPGF.Interrupted(Stop.interrupted)) : Stop.running
end
@testset "best point, patience and interrupted evaluations in the shared loop" begin
    net = TestFunction{Float64}(x -> x[1], 1)
    r = minimize(net, [1.0]; optim_solver=Wanderer(), patience=3)
    @test r.stopped_by == Stop.patience && r.x == [4.0] && r.loss == 0.5 && r.iterations == 6
    r = minimize(net, [1.0]; optim_solver=Wanderer(), patience=100)
    @test r.stopped_by == Stop.interrupted && r.x == [4.0] && r.loss == 0.5
end

@testset "arguments" begin
    net = TestFunction{Float64}(rosenbrock, 2)
    @test_throws DimensionMismatch minimize(net, [1.0])
    for options in ((maxtime=-1,), (maxiterations=-1,), (min_gnorm=-1,), (minloss=-1,), (patience=0,))
        @test_throws ArgumentError minimize(net, [1.0, 2.0]; options...)
    end
    @test_throws ArgumentError NewtonTrustRegion(initial_radius=0)
end

"Optimality conditions of Moré & Sorensen (1983, Lemma 2.1), residuals in BigFloat."
function check_subproblem(evs, coefficients, radius; tol=1e-7)
    n = length(evs)
    Q = Matrix(qr(randn(MersenneTwister(n), n, n)).Q)
    H = Q * Diagonal(evs) * Q'
    H = (H + H') / 2
    g = Q * coefficients
    sub = Subproblem{Float64}(n)
    reduce!(sub, H)
    s = zeros(n)
    solve_subproblem!(s, sub, g, radius)
    scale = norm(g) + opnorm(H) * norm(s)
    residual = (big.(H) + big(sub.shift) * I) * big.(s) + big.(g)
    @test norm(residual) <= tol * scale
    @test sub.shift >= -minimum(evs) - tol * opnorm(H)
    @test sub.shift >= 0
    if sub.interior
        @test norm(s) <= radius
    else
        @test norm(s) ≈ radius rtol = tol
    end
    @test sub.reduction ≈ -(dot(g, s) + dot(s, H * s) / 2) rtol = 1e-6 atol = 1e-12 * scale
    return s, sub
end

@testset "trust-region subproblem" begin
    spectrum = exp10.(range(-10, 1, length=20))
    c = [1.0 + 0.1i for i in 1:20]
    for radius in (1e-6, 1.0, 1e4)
        _, sub = check_subproblem(spectrum, c, radius)
        @test !sub.interior
    end
    _, sub = check_subproblem(exp10.(range(-2, 1, length=20)), c, 1e6)
    @test sub.interior && sub.shift == 0
    indefinite = copy(spectrum)
    indefinite[1] = -0.3
    for radius in (1e-3, 1.0, 1e4)
        check_subproblem(indefinite, c, radius)
    end
    # hard case: g has no component along the lowest eigenvector, and s(−λ_min) is shorter than the radius
    hard = copy(c)
    hard[1] = 0
    for radius in (10.0, 100.0, 1e4)
        s, sub = check_subproblem(indefinite, hard, radius)
        exact = norm(hard[2:end] ./ (indefinite[2:end] .+ 0.3))
        radius > exact && @test sub.shift ≈ 0.3 rtol = 1e-6
    end
    # a double lowest eigenvalue, and no gradient at all
    indefinite[2] = -0.3
    hard[2] = 0
    check_subproblem(indefinite, hard, 100.0)
    check_subproblem(indefinite, zeros(20), 2.0)
    check_subproblem([-2.0], [0.0], 0.5)
    check_subproblem([-2.0, 1.0], [0.0, 1.0], 10.0)
    check_subproblem([-2.0, -2.0, -2.0], [0.0, 1e-9, 0.0], 10.0)
    check_subproblem(zeros(5), ones(5), 3.0)
    check_subproblem(randn(MersenneTwister(1), 150), randn(MersenneTwister(2), 150), 3.0)
end

@testset "shifted solver" begin
    A = randn(MersenneTwister(3), 15, 15)
    A = A + A'
    S = ShiftedSolver{Float64}(15)
    reduce!(S, A)
    b = randn(MersenneTwister(4), 15)
    shift = 1.0 - eigmin(Symmetric(A))
    @test MLPGF.factor!(S, shift)
    y = MLPGF.rotate_out!(S, MLPGF.solve!(zeros(15), S, MLPGF.rotate_in!(S, copy(b))))
    @test y ≈ (A + shift * I) \ b rtol = 1e-12
    @test !MLPGF.factor!(S, -eigmin(Symmetric(A)) - 1e-6)
    @test MLPGF.factor!(S, -eigmin(Symmetric(A)) + 1e-6)
    tridiagonal = SymTridiagonal(copy(S.diagonal), S.offdiagonal[1:end-1])
    @test eigvals(tridiagonal) ≈ eigvals(Symmetric(A)) rtol = 1e-12
    @test MLPGF.norm_bound(S) >= opnorm(A)
end

@testset "number types: $T, $m" for T in (Float32, BigFloat), m in METHODS
    net = TestFunction{T}(rosenbrock, 2)
    r = minimize(net, T[-1.2, 1]; optim_solver=m, maxiterations=2000)
    @test r.x isa Vector{T} && r.loss isa T && r.gnorm isa T
    @test r.stopped_by in (Stop.roundoff, Stop.min_gnorm)
    @test r.gnorm <= 1000 * eps(T)
    @test minimize(TestFunction{T}(saddle, 2), T[1, 0.1]; optim_solver=m).loss ≈ -1 / T(4) rtol = 100 * eps(T)
end

@testset "no allocation in an iteration: $m" for m in METHODS[2:end]     # auto has none of its own
    objective = Objective(Quartic{Float64}(20))
    state = make_state(m, objective, [sin(3.0i) for i in 1:20])
    step(state, objective, m, n) = (for _ in 1:n; step!(state, objective, m); end)
    step(state, objective, m, 5)
    @test (@allocated step(state, objective, m, 30)) == 0
    @test objective.nfev == objective.njev
end

@testset "valley: momentum, corrections and the last iterations" begin
    # Rosenbrock's chain in 30 variables is one long curved valley.
    net = TestFunction{Float64}(rosenbrock, 30)
    x0 = zeros(30)
    bare = NewtonTrustRegion(corrections=0, momentum=false)
    plain = minimize(net, x0; optim_solver=bare, maxiterations=2000)
    full = minimize(net, x0; optim_solver=NewtonTrustRegion(), maxiterations=2000)
    @test plain.loss <= 1e-20 && full.loss <= 1e-20
    @test full.gnorm <= 1e-12
    # a run cut short ends on the floor: its last gradient is far below the median of the run
    slow = TestFunction{Float64}(x -> square(square(x[1])) + 1e4 * square(x[2] - square(x[1])), 2)
    r = minimize(slow, [1.5, 0.0]; optim_solver=NewtonTrustRegion(), maxiterations=120)
    @test r.loss <= 1e-10
    @test MLPGF.is_closing(MLPGF.Limits{Float64}(Inf, 100.0, 0.0, 0.0, 10.0), 95, Monitor())
    @test !MLPGF.is_closing(MLPGF.Limits{Float64}(Inf, 100.0, 0.0, 0.0, 10.0), 85, Monitor())
    @test !MLPGF.is_closing(MLPGF.Limits{Float64}(Inf, Inf, 0.0, 0.0, 10.0), 10^6, Monitor())
    # one settling step lowers the gradient norm and not the loss's rank
    objective = Objective(Quartic{Float64}(20))
    state = make_state(NewtonTrustRegion(), objective, [sin(3.0i) for i in 1:20])
    before = (state.loss, state.gnorm)
    for _ in 1:3
        MLPGF.settle!(state, objective, NewtonTrustRegion())
    end
    @test state.loss < before[1] && state.gnorm < before[2]
    # off the floor by a step along the stiff direction: back, and not along the valley
    stiff = TestFunction{Float64}(x -> 1e-4 * square(x[1]) + 1e4 * square(x[2] - square(x[1])), 2)
    state = make_state(NewtonLBFGS(), Objective(stiff), [1.0, 1.0001])
    gnorm = state.gnorm
    for _ in 1:3
        MLPGF.settle!(state, Objective(stiff), NewtonLBFGS())
    end
    @test state.gnorm < 1e-3 * gnorm && abs(state.x[1] - 1) < 0.1
end

@testset "trace" begin
    trace = MinimizeTrace()
    for i in 0:10_000
        record!(trace, i, 1 / (i + 1), 1.0)
    end
    finish!(trace, 10_001, 0.0, 0.0)
    @test length(trace.iteration) == length(trace.loss) == length(trace.gnorm) <= TRACE_LENGTH
    @test length(trace.iteration) > TRACE_LENGTH ÷ 3
    @test first(trace.iteration) == 0 && last(trace.iteration) == 10_001
    @test issorted(trace.iteration) && all(trace.loss[1:end-1] .≈ 1 ./ (trace.iteration[1:end-1] .+ 1))
    r = minimize(TestFunction{Float64}(rosenbrock, 2), [-1.2, 1.0])
    @test r.trace.loss[1] == rosenbrock([-1.2, 1.0]) && r.trace.iteration[end] == r.iterations
    @test occursin("auto", sprint(show, r))
end
