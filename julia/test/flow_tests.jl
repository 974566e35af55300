# The builtin solvers of the gradient flow, against closed forms and BigFloat runs.
using Test, LinearAlgebra
using MLPGF
using MLPGF: AbstractNet, Auto, FlowProblem, FlowState, Monitor, Rodas5P, Stop, Tsit5, flow
import MLPGF: gradient!, hessian!, n_params, value_and_gradient!

# L = x'Ax/2 - b'x
struct Quadratic{T} <: AbstractNet{T}
    A::Matrix{T}
    b::Vector{T}
end
Quadratic(A::Matrix{T}) where {T} = Quadratic{T}(A, zeros(T, size(A, 1)))
n_params(q::Quadratic) = length(q.b)
function gradient!(g::Vector{T}, q::Quadratic{T}, x::Vector{T}) where {T}
    for i in eachindex(g)
        s = -q.b[i]
        for j in eachindex(x)
            s += q.A[j, i] * x[j]
        end
        g[i] = s
    end
    return g
end
function value_and_gradient!(g::Vector{T}, q::Quadratic{T}, x::Vector{T}) where {T}
    gradient!(g, q, x)
    s = zero(T)
    for i in eachindex(x)
        s += (g[i] - q.b[i]) * x[i]
    end
    return s / 2
end
hessian!(H::Matrix{T}, q::Quadratic{T}, x::Vector{T}) where {T} = copyto!(H, q.A)

# One function of each parameter, its two derivatives given: the closed forms of scalar flows, rotated by
# nothing.
struct Separable{T,F,G,H} <: AbstractNet{T}
    n::Int
    f::F
    d::G
    dd::H
end
Separable{T}(n, f::F, d::G, dd::H) where {T,F,G,H} = Separable{T,F,G,H}(n, f, d, dd)
n_params(s::Separable) = s.n
function gradient!(g, s::Separable{T}, x::Vector{T}) where {T}
    map!(s.d, g, x)
    return g
end
function value_and_gradient!(g::Vector{T}, s::Separable{T}, x::Vector{T}) where {T}
    map!(s.d, g, x)
    return T(sum(s.f, x))
end
function hessian!(H::Matrix{T}, s::Separable{T}, x::Vector{T}) where {T}
    fill!(H, zero(T))
    for i in 1:s.n
        H[i, i] = s.dd(x[i])
    end
    return H
end

quartic(T, n=1) = Separable{T}(n, x -> x^4 / 4, x -> x^3, x -> 3x^2)
quartic_flow(x0, t) = x0 / sqrt(1 + 2t * x0^2)
double_well(T, n=1) = Separable{T}(n, x -> (x^2 - 1)^2 / 4, x -> x^3 - x, x -> 3x^2 - 1)
double_well_flow(x0, t) = x0 * exp(t) / sqrt(1 + x0^2 * expm1(2t))

# Coupled and nonlinear: L = (1 - x)²/2 + 5 (y - x²)² (Rosenbrock's valley).
struct Valley{T} <: AbstractNet{T} end
n_params(::Valley) = 2
gradient!(g, v::Valley, x) = (value_and_gradient!(g, v, x); g)
function value_and_gradient!(g::Vector{T}, ::Valley{T}, x::Vector{T}) where {T}
    r = x[2] - x[1]^2
    g[1] = x[1] - 1 - 20 * r * x[1]
    g[2] = 10 * r
    return (1 - x[1])^2 / 2 + 5 * r^2
end
function hessian!(H::Matrix{T}, ::Valley{T}, x::Vector{T}) where {T}
    H[1, 1] = 1 - 20 * (x[2] - 3 * x[1]^2)
    H[1, 2] = H[2, 1] = -20 * x[1]
    H[2, 2] = 10
    return H
end

orthogonal(n) = Matrix(qr([sin(i * j + 0.3i) for i in 1:n, j in 1:n]).Q)
spectrum(λ) = (Q = orthogonal(length(λ)); A = Q * Diagonal(λ) * Q'; (Q, (A + A') / 2))

const METHODS = (Tsit5(), Rodas5P())

# One step of length h, its result and its interpolant at s = 0.3, 0.6, 0.9.
function single_step(alg, net::AbstractNet{T}, x0, h) where {T}
    problem = FlowProblem(net, 1)
    state = FlowState(problem, 1.0, 1.0)
    cache = MLPGF.make_state(alg, T, problem.n)
    copyto!(state.y, x0)
    MLPGF.value_and_gradient_at!(state.g, problem, state.y)
    state.h = h
    @test MLPGF.step!(cache, problem, state)
    c = zeros(T, 5 * problem.n)
    MLPGF.interpolant!(c, 0, cache, problem, state)
    c = reshape(c, problem.n, 5)
    return copy(state.ynew), [c * [T(s)^m for m in 0:4] for s in (3 // 10, 6 // 10, 9 // 10)], copy(state.err)
end

@testset "flow" begin
    # BigFloat, so that round-off of the differences does not hide the order. The valley is coupled:
    # mistakes in coefficients that a scalar problem forgives show there.
    @testset "order of $alg" for alg in METHODS
        net = Valley{BigFloat}()
        x0 = BigFloat[-1.2, 1]
        exact = flow(net, x0; alg=Tsit5(), abstol=1e-19, reltol=1e-19, maxT=0.002, dense=true)
        error_of(h) = begin
            x, dense, estimate = single_step(alg, net, x0, h)
            norm(x - exact.sol(h)),
            maximum(norm(v - exact.sol(s * h)) for (s, v) in zip((0.3, 0.6, 0.9), dense)),
            norm(estimate)
        end
        coarse, fine = error_of(0.001), error_of(0.0005)
        @test log2(coarse[1] / fine[1]) > 5.6            # local error h⁶: order 5
        @test 4.5 < log2(coarse[2] / fine[2]) < 6.5      # interpolant of order 4
        @test log2(coarse[3] / fine[3]) > 4.5            # error estimate of order 4
    end

    @testset "global order of $alg" for alg in METHODS
        # Fixed steps by hand, against the closed form.
        net = quartic(BigFloat)
        errors = map((20, 40)) do m
            x = BigFloat[1]
            for _ in 1:m
                x = single_step(alg, net, x, 1 / m)[1]
            end
            abs(x[1] - quartic_flow(BigFloat(1), 1))
        end
        @test 4.7 < log2(errors[1] / errors[2]) < 6
    end

    @testset "conditions of the tableaus" begin
        pairs = [alg for (name, alg) in MLPGF.FLOW_METHODS if alg isa MLPGF.ExplicitPair]
        for alg in pairs, T in (Float64, BigFloat)
            t = MLPGF.tableau(alg, T)
            near = T == BigFloat ? 1e-70 : 1e-13
            b = t.a[end]
            c = vcat(zero(T), [sum(row) for row in t.a[1:end-1]])
            for k in 1:t.order
                @test sum(b .* c .^ (k - 1)) ≈ 1 / T(k) rtol = near
            end
            @test abs(sum(t.error)) < near / 10
            # The interpolant ends at the solution, begins with the gradient, and is exact for a constant one.
            @test vec(sum(t.interpolant; dims=2))[1:end-1] ≈ b atol = 1e-13
            @test t.interpolant[:, 1] ≈ [1; zeros(length(b))] atol = 1e-13
            @test vec(sum(t.interpolant; dims=1)) ≈ [1; zeros(size(t.interpolant, 2) - 1)] atol = 1e-13
        end
        # Linear problems see the stability function: R(z) = e^z up to z⁵, R(-∞) = 0.
        R(z) = single_step(Rodas5P(), Quadratic(fill(-z, 1, 1)), [one(z)], 1.0)[1][1]
        for (z, bound) in ((big"1e-2", 1e-16), (big"-1e-2", 1e-16))
            @test abs(R(z) - exp(z)) < bound
        end
        @test abs(R(-1e8)) < 1e-6
    end

    @testset "condition $κ, $alg" for κ in (1e8, 1e16), alg in (Rodas5P(), Auto())
        λ = exp10.(range(-log10(κ) / 2, log10(κ) / 2, length=6))
        Q, A = spectrum(λ)
        x0 = ones(6)
        T = 10.0
        r = flow(Quadratic(A), x0; alg=alg, maxT=T, abstol=1e-8, reltol=1e-8, maxiterations=3000)
        @test r.stopped_by == Stop.maxT
        exact = Q * (exp.(-λ .* T) .* (Q' * x0))
        @test norm(r.x - exact) < 1e-6
        @test r.iterations < 250
    end

    @testset "quadratic saddle, $alg" for alg in METHODS, λ in (-1.0, -1e-3)
        # Far below abstol, an escape direction must still grow at its rate.
        Q, A = spectrum([λ, 1.0, 30.0])
        x0 = Q * [1e-9, 1.0, 1.0]
        T = 14 / abs(λ)
        λ == -1e-3 && alg == Tsit5() && (T /= 10)
        r = flow(Quadratic(A), x0; alg=alg, maxT=T)
        @test r.stopped_by == Stop.maxT
        @test dot(Q[:, 1], r.x) ≈ 1e-9 * exp(-λ * T) rtol = 1e-4
        @test alg == Tsit5() || r.iterations < 150
    end

    @testset "double well, $alg" for alg in (Tsit5(), Rodas5P(), Auto()), tol in (1e-4, 1e-6, 1e-8)
        for T in (15.0, 18.0, 19.0, 25.0)
            r = flow(double_well(Float64), [1e-8]; alg=alg, maxT=T, abstol=tol, reltol=tol)
            @test r.x[1] ≈ Float64(double_well_flow(big"1e-8", big(T))) rtol = 30tol
        end
    end

    @testset "tolerance, $alg" for alg in METHODS
        x0 = [-1.2, 1.0]
        exact = flow(Valley{Float64}(), x0; alg=Rodas5P(), abstol=1e-13, reltol=1e-13, maxT=3.0).x
        errors = [norm(flow(Valley{Float64}(), x0; alg=alg, abstol=tol, reltol=tol, maxT=3.0).x - exact)
                  for tol in (1e-4, 1e-6, 1e-8, 1e-10)]
        @test all(errors .< 30 .* (1e-4, 1e-6, 1e-8, 1e-10))
        @test issorted(errors, rev=true)
        # The two methods agree.
        other = flow(Valley{Float64}(), x0; alg=Tsit5(), abstol=1e-12, reltol=1e-12, maxT=3.0).x
        @test norm(other - exact) < 1e-10
    end

    @testset "stops" begin
        q = Quadratic([2.0 1.0; 1.0 300.0], [1.0, 2.0])
        x0, xmin = [1.0, -1.0], q.A \ q.b
        for alg in (Tsit5(), Rodas5P(), Auto())
            for T in (0.1, 1 / 3, 7.7)
                r = flow(q, x0; alg=alg, maxT=T)
                @test r.stopped_by == Stop.maxT && r.t === T && r.trajectory.t[end] === T
            end
            r = flow(q, x0; alg=alg, min_gnorm=1e-9)
            @test r.stopped_by == Stop.min_gnorm && r.gnorm <= 1e-9
            @test norm(q.A * r.x - q.b, Inf) ≈ r.gnorm atol = 1e-13
            r = flow(q, x0; alg=alg, maxiterations=5)
            @test r.stopped_by == Stop.maxiterations && r.iterations == 5
            r = flow(q, x0; alg=alg, maxtime=0)
            @test r.stopped_by == Stop.maxtime && r.x == x0
            r = flow(q, x0; alg=alg)
            @test r.stopped_by in (Stop.roundoff, Stop.min_gnorm)
            @test norm(r.x - xmin) < 1e-12
        end
        r = flow(q, x0; maxT=0)
        @test r.stopped_by == Stop.maxT && r.t == 0 && r.x == x0 && r.iterations == 0
        r = flow(q, xmin; min_gnorm=1e-10)
        @test r.stopped_by == Stop.min_gnorm && r.iterations == 0
        r = flow(Valley{Float64}(), [-1.2, 1.0]; minloss=1e-5)
        @test r.stopped_by == Stop.minloss && r.loss <= 1e-5
        @test flow(Valley{Float64}(), [-1.2, 1.0]; minloss=0, maxT=1).stopped_by == Stop.maxT
        @test_throws DimensionMismatch flow(q, [1.0])
        @test_throws DimensionMismatch flow(q, x0; tauinv=[1.0])
        @test_throws ArgumentError flow(q, x0; tauinv=-1)
        @test_throws ArgumentError flow(q, x0; maxT=NaN)
        @test_throws ArgumentError flow(q, x0; abstol=-1)
    end

    @testset "interruption" begin
        calls = Ref(0)
        seen = Float64[]
        function report(phase, iteration, t, loss, gnorm, x)
            calls[] += 1
            push!(seen, loss)
            return calls[] == 4 ? Stop.interrupted : Stop.running
        end
        r = flow(Valley{Float64}(), [-1.2, 1.0]; monitor=Monitor(report; interval=0.0))
        @test r.stopped_by == Stop.interrupted && r.iterations == 3
        @test r.loss == seen[end] && r.loss < seen[1]
        # An evaluation that is broken off leaves the last accepted point.
        evaluations = Ref(0)
        function derivative(x)
            (evaluations[] += 1) == 40 && throw(MLPGF.Interrupted(Stop.interrupted))
            return x^3
        end
        for (alg, start) in ((Tsit5(), 0), (Rodas5P(), 0), (Tsit5(), 39))
            evaluations[] = start
            r = flow(Separable{Float64}(1, x -> x^4 / 4, derivative, x -> 3x^2), [1.0]; alg=alg)
            @test r.stopped_by == Stop.interrupted && (r.iterations > 1) == (start == 0)
            @test r.x[1] ≈ quartic_flow(1.0, r.t) rtol = 1e-5
            @test r.x == r.trajectory.x[:, end]
        end
        r = flow(Valley{Float64}(), [-1.2, 1.0]; monitor=Monitor((a...) -> Stop.callback))
        @test r.stopped_by == Stop.callback && r.x == [-1.2, 1.0]
    end

    @testset "long clock" begin
        Q, A = spectrum([1.0, 50.0, 1e3])
        q = Quadratic(A, Q * [1.0, 2.0, 3.0])
        r = flow(q, zeros(3); alg=Rodas5P(), maxT=1e300, min_gnorm=-1)
        @test r.t == 1e300 && r.stopped_by == Stop.maxT && r.iterations < 500
        @test r.x ≈ A \ q.b rtol = 1e-12
        # A valley with its minimum at infinity: x = log(1 + t).
        slope = Separable{Float64}(1, x -> exp(-x), x -> -exp(-x), x -> exp(-x))
        r = flow(slope, [0.0]; alg=Rodas5P(), maxT=1e12)
        @test r.x[1] ≈ log1p(1e12) rtol = 1e-5
        @test r.iterations < 300
        # The clock adds up steps far below its own spacing.
        state = FlowState(FlowProblem(quartic(Float64), 1), 1.0, 1.0)
        state.t, state.h = 1e20, 1.0
        foreach(_ -> MLPGF.advance!(state), 1:10^5)
        @test (state.t - 1e20) + state.t_low == 1e5 && eps(state.t) > 1e4
    end

    @testset "tauinv, $alg" for alg in METHODS
        Q, A = spectrum([0.5, 2.0, 10.0])
        x0 = [1.0, -2.0, 0.7]
        T = 1.3
        exact(τ) = exp(-Diagonal(τ) * A * T) * x0
        for τ in (ones(3), fill(4.0, 3), [0.3, 2.0, 7.0])
            r = flow(Quadratic(A), x0; alg=alg, tauinv=τ, maxT=T, abstol=1e-9, reltol=1e-9, dense=true)
            @test norm(r.x - exact(τ)) < 1e-7
            @test r.gnorm ≈ norm(A * r.x, Inf) rtol = 1e-12
            @test r.sol(T) ≈ r.x rtol = 1e-12
        end
        a = flow(Quadratic(A), x0; alg=alg, tauinv=4, maxT=T)
        @test norm(a.x - exact(fill(4.0, 3))) < 1e-4
        frozen = flow(Quadratic(A), x0; alg=alg, tauinv=[1.0, 0.0, 3.0], maxT=1e3, min_gnorm=1e-8)
        @test frozen.x[2] === x0[2] && frozen.stopped_by == Stop.min_gnorm
        free = [1, 3]
        @test frozen.x[free] ≈ -A[free, free] \ (A[free, 2] * x0[2]) atol = 1e-7
        @test all(==(x0[2]), frozen.trajectory.x[2, :])
    end

    @testset "trajectory" begin
        net, x0 = Valley{Float64}(), [-1.2, 1.0]
        every = flow(net, x0; alg=Tsit5(), maxT=30, save_everystep=true)
        @test length(every.trajectory) == every.iterations + 1
        for samples in (2, 3, 10, 50)
            r = flow(net, x0; alg=Tsit5(), maxT=30, n_samples_trajectory=samples)
            t = r.trajectory.t
            @test length(t) == min(samples, r.iterations + 1)
            @test t[1] == 0 && t[end] == 30 && issorted(t) && allunique(t)
            @test r.trajectory.x[:, 1] == x0 && r.trajectory.x[:, end] == r.x
            for k in eachindex(t)
                j = findfirst(==(t[k]), every.trajectory.t)
                @test every.trajectory.x[:, j] == r.trajectory.x[:, k]
                @test every.trajectory.loss[j] == r.trajectory.loss[k]
                @test every.trajectory.gnorm[j] == r.trajectory.gnorm[k]
            end
        end
        # Many more steps than samples: points where something happens, bounded memory, and lines in log t that miss
        # little.
        for last in (1e3, 1e30, 1e300)
            loss(t) = 1e-12 + exp(-t / 3) + 1e-3 / (1 + t / 100)^2
            norm(t) = 1e-9 + exp(-t / 3) + 1e-4 / (1 + t / 100)^3
            place(t) = [tanh(log1p(t) - 2), 0.3]
            recorder = MLPGF.Recorder(Float64, 2, (50, 50))
            times = [0.0; 10.0 .^ range(-6, log10(last); length=5000)]
            for t in times
                MLPGF.record!(recorder, t, place(t), loss(t), norm(t))
                @assert recorder.count <= 100
            end
            kept = MLPGF.Trajectory(recorder)
            @test length(kept) == 50 && kept.t[1] == 0 && kept.t[2] == times[2] && kept.t[end] == times[end]
            for t in times[2:end]
                k = min(searchsortedlast(kept.t, t), 49)
                s = log(t / kept.t[k]) / log(kept.t[k+1] / kept.t[k])
                line(v) = (1 - s) * v[k] + s * v[k+1]
                @assert abs(line(log.(kept.loss)) - log(loss(t))) < 0.15
                @assert abs(line(log.(kept.gnorm)) - log(norm(t))) < 0.15
                @assert abs(line(kept.x[1, :]) - place(t)[1]) < 0.15
            end
        end
        # By default small files and bounded work: see the docs of `flow`.
        sizes(n; options...) = MLPGF.recorded(MLPGF.FlowOptions(; options...), n)
        @test sizes.((0, 26, 33, 10^5)) == ((100, 10_000), (100, 10_000), (100, 7943), (100, 100))
        @test sizes(33; observables=["norm" => norm]) == (100, 100)
        @test sizes(33; n_samples_trajectory=1) == (2, 2) && sizes(33; save_everystep=true) == (0, 0)
        # Between a fewest and a most: as many as lines need, in memory of twice the most.
        for (jumps, kept) in ((0, 100:100), (300, 300:400), (1000, 400:400))
            recorder = MLPGF.Recorder(Float64, 2, (100, 400))
            for k in 1:3000
                MLPGF.record!(recorder, k, [1.0, 1 / k], 1 / k, (k > 3000 - jumps && isodd(k) ? 1.3 : 1.0) / k)
                @assert recorder.count <= length(recorder.t) <= 800
            end
            trajectory = MLPGF.Trajectory(recorder)
            @test length(trajectory) in kept
            @test (maximum(trajectory.within) <= MLPGF.WITHIN) == (jumps < 1000)
        end
    end

    @testset "dense output, $alg" for alg in METHODS
        r = flow(double_well(Float64, 3), [1e-3, 0.5, 2.0]; alg=alg, maxT=12.0, dense=true)
        @test size(r.sol.coefficients) == (3, 5, r.iterations)
        @test length(r.sol.t) == r.iterations + 1
        for t in range(0, 12, length=101)
            exact = double_well_flow.([1e-3, 0.5, 2.0], t)
            @test r.sol(t) ≈ exact atol = 2e-5
        end
        @test r.sol(0.0) == [1e-3, 0.5, 2.0]
        @test r.sol(12.0) ≈ r.x rtol = 1e-13
        c = r.sol.coefficients
        for k in 1:r.iterations-1           # continuous
            @test sum(c[:, :, k], dims=2) ≈ c[:, 1:1, k+1] rtol = 1e-12
        end
        @test_throws DomainError r.sol(12.1)
    end

    @testset "loss falls, $alg" for alg in (Tsit5(), Rodas5P(), Auto()), tol in (1e-2, 1e-6)
        r = flow(Valley{Float64}(), [-1.2, 1.0]; alg=alg, abstol=tol, reltol=tol, maxT=200,
                 save_everystep=true)
        rise = diff(r.trajectory.loss)
        @test maximum(rise) <= tol * r.trajectory.loss[1] && r.loss == r.trajectory.loss[end]
        @test r.loss <= minimum(r.trajectory.loss) + tol
    end

    @testset "number types" begin
        for alg in METHODS
            r = flow(double_well(Float32), Float32[1e-4]; alg=alg, maxT=8, abstol=1e-5, reltol=1e-4)
            @test r.x isa Vector{Float32} && r.loss isa Float32
            @test r.x[1] ≈ double_well_flow(1e-4, 8) rtol = 1e-2
            r = flow(Quadratic(Float32[2 1; 1 3], Float32[1, 1]), Float32[0, 0]; alg=alg)
            @test r.stopped_by in (Stop.roundoff, Stop.min_gnorm)
            @test r.x ≈ [0.4, 0.2] rtol = 1e-5
            r = flow(Quadratic(Float32[2 1; 1 3], Float32[1, 1]), Float32[0, 0]; alg=Rodas5P(), maxT=1e300,
                     min_gnorm=-1)
            @test r.t == 1e300
            r = flow(double_well(BigFloat), [big"1e-8"]; alg=alg, maxT=20, abstol=1e-13, reltol=1e-13)
            @test r.x[1] ≈ double_well_flow(big"1e-8", 20) rtol = 1e-11
        end
        r = flow(Quadratic(BigFloat[2 1; 1 3], BigFloat[1, 1]), BigFloat[0, 0]; alg=Rodas5P(),
                 min_gnorm=1e-30)
        @test r.stopped_by == Stop.min_gnorm && norm(r.x - [big"2" / 5, big"1" / 5]) < 1e-29
    end

    @testset "no allocation, $alg, $T" for alg in METHODS, T in (Float64, Float32), tauinv in (1, 2)
        Q, A = spectrum([0.5, 2.0, 10.0])
        problem = FlowProblem(Quadratic(Matrix{T}(A)), tauinv)
        state = FlowState(problem, 1e-3, 1e-3)
        cache = MLPGF.make_state(alg, T, 3)
        state.y .= 1
        MLPGF.value_and_gradient_at!(state.g, problem, state.y)
        state.loss = problem.value[]
        state.h = 0.01
        function step(cache, problem, state)
            attempted = MLPGF.step!(cache, problem, state)
            MLPGF.evaluate_trial!(problem, state)
            MLPGF.measure!(cache, state)
            MLPGF.advance!(state)
            MLPGF.accepted!(cache)
            return nothing
        end
        step(cache, problem, state)
        @test @allocated(step(cache, problem, state)) == 0
        # Over a whole run, nothing grows with the number of steps.
        run(m) = flow(Quadratic(Matrix{T}(A)), ones(T, 3); alg=alg, maxiterations=m, dt=1e-4,
                      n_samples_trajectory=2)
        run(3)
        few = @allocated run(3)
        @test @allocated(run(20)) == few
    end

    @testset "evaluations, $alg" for alg in METHODS
        r = flow(quartic(Float64), [1.0]; alg=alg, maxT=10, dt=0.01)
        stages = alg == Tsit5() ? 6 : 8
        # The first gradient and the one that chooses no step; a rejected step of Rodas5P may skip the last.
        @test stages * r.iterations + 1 <= r.nfev <= stages * (r.iterations + r.rejected) + 1
        @test r.nhev == (alg == Tsit5() ? 0 : r.iterations)
    end

    @testset "divergence, $alg" for alg in (Tsit5(), Rodas5P(), Auto())
        # The loss is not a number beyond x = 0.5, towards which the flow runs.
        wall = Separable{Float64}(1, x -> x < 0.5 ? -x : NaN, x -> x < 0.5 ? -1.0 : NaN, x -> 0.0)
        r = flow(wall, [0.0]; alg=alg, maxT=10)
        @test r.stopped_by == Stop.diverged && isfinite(r.loss)
        @test 0.4 < r.x[1] < 0.5
        # Blows up at t = 1/8.
        r = flow(Separable{Float64}(1, x -> -x^4, x -> -4x^3, x -> -12x^2), [1.0]; alg=alg, maxT=10)
        @test r.stopped_by in (Stop.diverged, Stop.roundoff) && isfinite(r.x[1]) && isfinite(r.loss)
        @test r.t ≈ 0.125 rtol = 1e-4
        @test flow(wall, [1.0]; alg=alg, maxT=10).stopped_by == Stop.diverged
    end
end
