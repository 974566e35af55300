# Every minimizer on the table of problems; the parts of the new ones against definitions in dense linear algebra.

using Test, LinearAlgebra, Random
using MLPGF
using MLPGF: AbstractNet, Objective, SymmetricEigen, LimitedInverse, make_state, step!,
    decompose!, inverse_model, reset!, update!, apply_inverse!, gauss_newton!, loss_noise

Base.include(@__MODULE__, joinpath(@__DIR__, "problems.jl"))

const DENSE = (NewtonLBFGS(), NewtonTrustRegion(), Newton(), LevenbergMarquardt(), BFGS())
const LARGE = (LBFGS(), NewtonKrylov())
pairs_that_fit = [(problem, m) for problem in test_problems() for m in (DENSE..., LARGE...)
                  if !(m isa LevenbergMarquardt) || problem.net isa Net]

"Loss that 300 iterations have to reach where the minimum is no point; 30 where an iteration of dense methods is dear."
const REACHED = Dict("33 parameters" => 1e-4, "601 parameters" => 0.5, "deep and narrow" => 1e-3)

@testset "table of problems: $(problem), $(MLPGF.method_name(m))" for (problem, m) in pairs_that_fit
    start = copy(problem.x0)
    few = haskey(REACHED, problem.name)
    iterations = problem.name == "601 parameters" && m in DENSE && !(m isa BFGS) ? 8 : few ? 300 : 3000
    r = minimize(problem.net, start; optim_solver=m, maxiterations=iterations)
    @test start == problem.x0
    @test r.loss ≈ loss(problem.net, r.x) rtol = 1e-6 atol = 1e-30
    @test r.gnorm == maximum(abs, gradient(problem.net, r.x))
    if few
        # Newton's steps are too long for valleys: it is for minima.
        @test r.loss < (m isa Newton ? 1.0 : REACHED[problem.name]) * (m isa Newton ? loss(problem.net, start) : 1.0)
    elseif problem.isolated
        @test r.loss - problem.minloss <= 1e-28
        @test r.gnorm <= 1e-13
    elseif problem.minloss !== nothing
        @test r.loss - problem.minloss <= (m isa Newton ? 1e-15 : 1e-28)
    end
end

"A minimum with residuals left, whose Hessian is positive definite: targets of the same architecture, with noise."
function well_posed(::Type{T}, layers, D, N; noise=0.1, l2=1e-4) where {T}
    X = inputs(T, D, N)
    model = Net(layers=layers, n_features=D, T=T)
    truth = T.(1.5 .* normal(3, n_params(model)))
    target = predict(model, truth, X) .+ T.(noise .* normal(4, last(layers)[1], N))
    net = Net(layers=layers, input=X, target=target, l2=T(l2))
    return net, truth .+ T.(0.05 .* normal(5, length(truth)))
end

const SHAPES = [
    ("one unit, one sample", ((1, tanh, true), (1, identity, true)), 1, 1),
    ("two units", ((2, tanh, true), (1, identity, true)), 2, 50),
    ("no bias, two outputs", ((3, "sigmoid", false), (2, identity, false)), 3, 60),
    ("deep", ((2, tanh, true), (2, "softplus", true), (2, tanh, true), (1, identity, true)), 2, 80),
]

@testset "isolated minimum, down to round-off: $shape" for (shape, layers, D, N) in SHAPES
    net, x0 = well_posed(Float64, layers, D, N)
    exact = Net(layers=layers, input=big.(inputs(Float64, D, N)),
                target=big.(vcat((b.Y[1:min(b.n, N), :]' for b in net.blocks)...)),
                l2=big(1e-4), T=BigFloat)
    best = Inf
    for m in (DENSE..., LARGE...)
        r = minimize(net, x0; optim_solver=m, maxiterations=5000)
        best = min(best, r.loss)
        @test r.stopped_by in (Stop.roundoff, Stop.min_gnorm)
        @test r.gnorm <= (m isa Union{BFGS,LBFGS,LevenbergMarquardt} ? 1e-9 : 1e-13)
        # Newton's method in 256 bits from there: how far was it?
        g, H = gradient(exact, big.(r.x)), hessian(exact, big.(r.x))
        m isa Union{NewtonTrustRegion,Newton,NewtonKrylov} && @test norm(H \ g) <= 1e-8 * max(1, norm(r.x))
        @test isposdef(Symmetric(Float64.(H)))
    end
end

# The others run in these types in minimize_tests.jl, on functions that have no Gauss–Newton matrix.
@testset "Float32 and BigFloat: $T, $(MLPGF.method_name(m))" for T in (Float32, BigFloat),
                                                                 m in (NewtonTrustRegion(), LevenbergMarquardt())
    # Gauss and Newton's matrix converges quadratically only where nothing is left.
    left = m isa LevenbergMarquardt ? (noise=0, l2=0) : (noise=0.1, l2=1e-4)
    net, x0 = well_posed(T, ((2, tanh, true), (1, identity, true)), 2, 16; left...)
    r = minimize(net, x0; optim_solver=m, maxiterations=T == BigFloat ? 60 : 2000)
    @test r.x isa Vector{T} && r.loss isa T
    @test r.gnorm <= (T == Float32 ? T(2e-6) : T(1e-40))
end

@testset "from the saddle itself: $(MLPGF.method_name(m))" for m in (NewtonTrustRegion(), Newton(), NewtonKrylov())
    Q = orthogonal(Float64, 4)
    net = Rotated{Float64}([(:well, 2.0), (:square, 1.0), (:square, 30.0), (:quartic, 1.0)], Q)
    for u0 in (zeros(4), [0.0, 1.0, 1.0, 0.5], [1e-13, 0, 0, 0])
        r = minimize(net, Q * u0; optim_solver=m, maxiterations=2000, min_gnorm=1e-12)
        @test abs(abs((Q'*r.x)[1]) - 1) <= 1e-10
        @test r.loss <= 1e-16
    end
end

@testset "quasi-Newton methods stop at a saddle: $(MLPGF.method_name(m))" for m in (BFGS(), LBFGS())
    net = Rotated{Float64}([(:well, 2.0), (:square, 1.0)], orthogonal(Float64, 2))
    @test minimize(net, [0.0, 0.0]; optim_solver=m).stopped_by == Stop.min_gnorm
end

@testset "nothing allocates in an iteration: $(MLPGF.method_name(m))" for m in (DENSE..., LARGE...)
    problem = test_problems()[5]
    @assert problem.name == "33 parameters"
    objective = Objective(problem.net)
    state = make_state(m, objective, copy(problem.x0))
    step(state, objective, m, n) = (for _ in 1:n; step!(state, objective, m); end)
    step(state, objective, m, 5)
    @test (@allocated step(state, objective, m, 40)) == 0
end

@testset "memory proportional to the parameters: $(MLPGF.method_name(m))" for m in LARGE
    X = inputs(Float64, 8, 16)
    net = Net(layers=((1000, tanh, true), (1, identity, true)), input=X, target=sum(X; dims=1))
    P = n_params(net)
    @test P > 10_000
    x0 = random_params(1, net)
    go() = minimize(net, x0; optim_solver=m, maxiterations=10)
    before = go()
    bytes = @allocated go()
    @test before.loss < 0.01 * loss(net, x0)
    @test bytes < 8P^2 / 8
end

@testset "eigenvalues and eigenvectors, P = $P, $T" for T in (Float64, Float32, BigFloat),
                                                         P in (T == BigFloat ? (1, 2, 5) : (1, 2, 3, 8, 33, 127, 128))
    G = T.(normal(P, P, P))
    Q = Matrix(qr(G).Q)
    graded = Q * Diagonal(T(10) .^ -(0:14)[mod1.(1:P, 15)]) * Q'
    for A in (G + G', T(1e30) * (G + G'), T(1e-30) * (G + G'), Matrix(Diagonal(G[:, 1])), G[:, 1] * G[:, 1]',
              zeros(T, P, P), Matrix{T}(I, P, P), graded + graded')
        e = SymmetricEigen{T}(P)
        @test decompose!(e, T[i < j ? NaN : A[i, j] for i in 1:P, j in 1:P])       # the upper triangle is not read
        V = e.vectors
        @test norm(V * Diagonal(e.values) * V' - A) <= 8 * P * eps(T) * norm(A)
        @test norm(V' * V - I) <= 8 * P * eps(T)
    end
end

@testset "Newton's direction where the Hessian is indefinite" begin
    problem = rotated(Float64, "", [(:square, 2.0), (:well, 1.5), (:square, 0.1)], [1.0, 0.3, -2.0], 1.0)
    objective = Objective(problem.net)
    state = make_state(Newton(), objective, copy(problem.x0))
    @test MLPGF.model!(state, objective) && !state.definite
    MLPGF.direct!(state)
    # u'/|u''| along each axis, of which the second bends down: 1.5 (u² - 1)²/4 at u = 0.3
    @test problem.net.Q' * state.ray.direction ≈ [-1.0, 0.3 * (1 - 0.3^2) / (1 - 3 * 0.3^2), 2.0]
end

@testset "limited-memory inverse against the matrix formula" begin
    P, m = 7, 4
    rng = MersenneTwister(1)
    model = reset!(inverse_model(LBFGS(memory=m), Float64, P))
    A = (B = randn(rng, P, P); B'B + I)
    pairs = [(s, A * s) for s in (randn(rng, P) for _ in 1:6)]
    for (s, y) in pairs
        @test update!(model, s, y, dot(s, y))
    end
    s, y = last(pairs)
    W = Matrix(dot(s, y) / dot(y, y) * I, P, P)
    for (s, y) in pairs[end-m+1:end]
        V = I - s * y' / dot(s, y)
        W = V * W * V' + s * s' / dot(s, y)
    end
    g = randn(rng, P)
    @test apply_inverse!(zeros(P), model, g) ≈ W * g rtol = 1e-12
    @test apply_inverse!(zeros(P), reset!(model), g) == g
    @test_throws ArgumentError LBFGS(memory=0)
    @test_throws ArgumentError NewtonKrylov(products=0)
end

@testset "truncated conjugate gradients" begin
    P = 12
    Q = orthogonal(Float64, P)
    step(terms, radius; forcing=1e-12) = begin
        net = Rotated{Float64}(terms, Q)
        method = NewtonKrylov(memory=0)
        objective = Objective(net)
        x = Q * collect(range(0.5, 1.5; length=P))
        state = make_state(method, objective, x)
        state.radius, state.forcing, state.before = radius, sqrt(forcing), two_norm_of(state.gradient) / sqrt(forcing)
        MLPGF.solve_truncated!(state, objective, method)
        H = hessian(net, x)
        s, g = state.ray.direction, state.gradient
        @test state.predicted ≈ -(dot(g, s) + dot(s, H * s) / 2) rtol = 1e-8
        @test dot(g, s) < 0
        return state, s, g, H
    end
    two_norm_of(v) = norm(v)
    definite = [(:square, λ) for λ in range(1, 50; length=P)]
    state, s, g, H = step(definite, 1e6)
    @test s ≈ -(H \ g) rtol = 1e-6
    @test !state.boundary
    state, s, = step(definite, 0.01)
    @test state.boundary && norm(s) ≈ 0.01
    state, s, g, H = step([[(:square, λ) for λ in range(1, 50; length=P - 1)]; (:square, -20.0)], 3.0)
    @test state.boundary && norm(s) ≈ 3.0
    cauchy = min(dot(g, g) / dot(g, H * g), 3.0 / norm(g))          # steepest descent in the same ball
    @test state.predicted > (1 - 1e-12) * (cauchy * dot(g, g) - cauchy^2 * dot(g, H * g) / 2)
end

@testset "Gauss–Newton matrix" begin
    for (layers, w) in ((((4, tanh, true), (1, identity, true)), rand(MersenneTwister(1), 40)),
                        (((3, tanh, true), (2, "softplus", false), (2, identity, true)), ones(40)))
        X = inputs(Float64, 3, 40)
        net = Net(layers=layers, input=X, target=randn(MersenneTwister(2), last(layers)[1], 40), weights=w)
        θ = random_params(1, net)
        J = jacobian(net, θ)
        G = fill(NaN, n_params(net), n_params(net))
        @test gauss_newton!(G, net, θ) === G
        @test G ≈ sum(2w[n] / 40 * J[:, n, :]' * J[:, n, :] for n in 1:40) rtol = 1e-12
        @test (@allocated gauss_newton!(G, net, θ)) == 0
        @test_throws DimensionMismatch gauss_newton!(zeros(2, 2), net, θ)
    end
end

@testset "Levenberg–Marquardt" begin
    quadratic = test_problems()[1]
    @test_throws ArgumentError minimize(quadratic.net, quadratic.x0; optim_solver=LevenbergMarquardt())
    # the regularisers are part of the model: linear least squares with a ridge takes one interior step
    X = inputs(Float64, 3, 20)
    net = Net(layers=((1, identity, true),), input=X, target=sum(X; dims=1), l2=0.5)
    r = minimize(net, zeros(4); optim_solver=LevenbergMarquardt(initial_radius=100.0))
    A = [X; ones(1, 20)]
    @test r.x ≈ (2 * A * A' / 20 + 0.5I) \ (2 * A * vec(sum(X; dims=1)) / 20) rtol = 1e-12
    @test r.trace.loss[2] ≈ r.loss rtol = 1e-10
    # classes
    labels = [1 + (X[1, i] > 0) + (X[2, i] > 0.5) for i in 1:20]
    soft = Net(layers=((2, tanh, true), (3, "softmax", true)), input=X, target=labels, loss="nll", l2=1e-2)
    a = minimize(soft, random_params(1, soft); optim_solver=LevenbergMarquardt(), maxiterations=500)
    b = minimize(soft, a.x; maxiterations=100)
    @test a.loss ≈ b.loss rtol = 1e-10
    @test isposdef(Symmetric(hessian(soft, b.x)))
    @test_throws ArgumentError LevenbergMarquardt(initial_radius=-1)
end

@testset "what decides near round-off, $T" for T in (Float32, Float64)
    quality(trial_loss, trial_gnorm, predicted) =
        MLPGF.step_quality(T(trial_loss), T(trial_gnorm), one(T), one(T), T(predicted))
    good(values...) = MLPGF.is_good(quality(values...), T(0.1))
    noise = eps(T)
    @test good(0.95, 2, 0.1) && !good(0.995, 0.5, 0.1)         # a decrease that shows: the loss, not the gradient norm
    @test quality(0.95, 2, 0.1).ratio ≈ 0.5
    @test good(1 + noise, 0.9, noise) && !good(1 - noise, 0.995, noise)     # one that does not: the gradient norm
    @test !good(1 + 2 * MLPGF.loss_noise(one(T)), 0.5, noise)               # with a loss that has not risen
    @test quality(1, 1, 15noise).resolved == false && quality(1, 1, 17noise).resolved
    @test !good(NaN, 0.5, 0.1) && !good(0.5, NaN, 0.1) && !good(1, NaN, noise) && !good(-Inf, 0.5, noise)
end

const BLIND = (NewtonTrustRegion(), Newton(), NewtonKrylov(), BFGS())
@testset "gradient decides where the loss is blind: $(MLPGF.method_name(m))" for m in BLIND
    # a constant of 1 hides every decrease below 1e-16, so that the loss stops at distance 1e-8
    X = inputs(Float64, 1, 30)
    net = Net(layers=((1, tanh, true), (1, identity, true)), input=X,
              target=tanh.(X) .+ [isodd(i) ? 1.0 : -1.0 for i in 1:30]')
    r = minimize(net, [1.2, 0.1, 0.9, 0.1]; optim_solver=m, maxiterations=1000)
    @test r.loss > 0.5
    @test r.gnorm <= 1e-14
end
