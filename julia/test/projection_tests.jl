# Variable projection, its QR decomposition and derivatives, and what "auto" makes of them.

using Test, LinearAlgebra, Random
using MLPGF
using MLPGF: TallQR, take_in!, reflect!, back_substitute!,
    OutputProjection, project!, Objective, make_state, step!, residual_jacobian!, residual_weights!, residual!,
    second_derivative!, forward!, separable

# Singular values down to 1e-12, of which normal equations would know half.
@testset "QR decomposition of blocks of rows: $T" for (T, decades) in ((Float64, 12), (BigFloat, 60))
    rng = MersenneTwister(1)
    rows, P = (7, 40, 3), 6
    Q, V = Matrix(qr(T.(randn(rng, 50, P))).Q)[:, 1:P], Matrix(qr(T.(randn(rng, P, P))).Q)
    A = Q * Diagonal(T(10) .^ range(0, -decades; length=P)) * V'
    x = T.(randn(rng, P))
    b = A * x
    q, z, first = TallQR{T}(P, rows), zeros(T, P), 0
    for (k, n) in enumerate(rows)
        copyto!(q.blocks[k], A[first+1:first+n, :])
        take_in!(q, k)
        reflect!(z, b[first+1:first+n], q, k)
        first += n
    end
    @test norm(triu(q.R)' * triu(q.R) - A' * A) <= 100 * eps(T)
    # backward stable: the residual is small, and the solution as exact as the smallest singular value allows
    back_substitute!(z, q)
    @test norm(A * z - b) <= 100 * eps(T) * norm(x)
    @test norm(z - x) <= 1000 * eps(T) * T(10)^decades * norm(x)
end

const NETS = [
    ("one hidden layer", ((5, tanh, true), (1, identity, true)), 2, 300, nothing, 1),
    ("no biases, weights", ((4, "softplus", false), (1, identity, false)), 3, 70, :weights, 1),
    ("deep, two outputs", ((4, tanh, true), (3, "sigmoid", true), (2, identity, true)), 2, 280, :weights, 0.3),
]

function projection_net(layers, D, N, weights, factor; T=Float64)
    rng = MersenneTwister(3)
    w = weights === nothing ? nothing : T.(rand(rng, N))
    X, Y = T.(randn(rng, D, N)), T.(randn(rng, last(layers)[1], N))
    return Net(layers=layers, input=X, target=Y, weights=w, output_factor=factor)
end

@testset "residuals and their derivatives: $name" for (name, layers, D, N, weights, factor) in NETS
    net = projection_net(layers, D, N, weights, factor)
    P, O, rng = n_params(net), last(layers)[1], MersenneTwister(5)
    θ, v = random_params(1, net), randn(rng, P)
    whole, ws, first = jacobian(net, θ), net.crew.workers[1].workspace, 0
    exact = projection_net(layers, D, N, weights, factor; T=BigFloat)
    h = big"1e-20"
    X = hcat((collect(b.X[1:b.n, 1:D]') for b in net.blocks)...)[:, 1:N]
    f(t) = predict(exact, big.(θ) .+ t .* big.(v), big.(X))
    second = (f(h) .- 2 .* f(big(0)) .+ f(-h)) ./ h^2
    half = zero(BigFloat)
    for block in net.blocks
        n = min(block.n, N - first)
        J, root, e = zeros(block.n, P), zeros(block.n), zeros(block.n)
        forward!(ws, net, θ, block, 1)
        residual_weights!(root, net, block)
        @test root[1:n] ≈ sqrt.(2 .* block.w[1:n] ./ N)
        for o in 1:O
            residual_jacobian!(J, ws, net, θ, block, root, o)
            @test J[1:n, :] ≈ root[1:n] .* whole[o, first+1:first+n, :] rtol = 1e-12
            half += sum(abs2, residual!(e, ws, block, root, o)) / 2
            @test all(iszero, e[n+1:end])
        end
        A = second_derivative!(ws, net, θ, v, block)
        @test A[1:n, 1:O] ≈ Float64.(second[:, first+1:first+n]') rtol = 1e-11
        first += n
    end
    @test half ≈ loss(net, θ) rtol = 1e-13
end

@testset "best output weights: $name" for (name, layers, D, N, weights, factor) in NETS
    net = projection_net(layers, D, N, weights, factor)
    θ, objective, offset = random_params(1, net), Objective(net), last(net.layers).offset
    before = copy(θ)
    projection = OutputProjection(net)
    @test project!(projection, objective, θ, 0.0)
    @test θ[1:offset] == before[1:offset]
    # the loss is quadratic in these parameters: Newton's step with its Hessian block
    g, H = gradient(net, before)[offset+1:end], hessian(net, before)[offset+1:end, offset+1:end]
    @test θ[offset+1:end] ≈ before[offset+1:end] - H \ g rtol = 1e-8
    @test maximum(abs, gradient(net, θ)[offset+1:end]) <= 1e-12
    damped = copy(before)
    @test project!(projection, objective, damped, 0.5)
    @test damped[offset+1:end] ≈ before[offset+1:end] - (H + 0.5I) \ g rtol = 1e-8
    project!(projection, objective, damped, 0.5)
    @test (@allocated project!(projection, objective, damped, 0.5)) == 0
    state = make_state(VariableProjection(), objective, before)
    @test MLPGF.solve_outputs!(state, objective, copyto!(state.trial, before))
    project!(projection, objective, copyto!(damped, before), MLPGF.output_damping(state)^2)
    @test state.trial ≈ damped rtol = 1e-10
end

"A student with `units` units of a teacher with two."
function student(units, activation="softplus"; N=300, noise=0)
    rng = MersenneTwister(11)
    X = randn(rng, 2, N)
    teacher = Net(layers=((2, activation, true), (1, identity, true)), n_features=2)
    Y = predict(teacher, randn(rng, n_params(teacher)), X) .+ noise .* randn(rng, 1, N)
    return Net(layers=((units, activation, true), (1, identity, true)), input=X, target=Y)
end

@testset "perfect fits of more units than needed" begin
    net = student(5)
    for seed in 1:3
        # near the end, where Newton's method creeps
        near = minimize(net, random_params(seed, net); optim_solver=NewtonLBFGS(), minloss=1e-10).x
        trust = minimize(net, near; optim_solver=NewtonTrustRegion(), maxiterations=200)
        r = minimize(net, near; optim_solver=VariableProjection(), maxiterations=200)
        @test r.loss <= 1e-28 || r.loss <= 1e-6 * trust.loss
        auto = minimize(net, near; maxiterations=2000)
        @test auto.loss <= 1e-28
        @test auto.stopped_by in (Stop.roundoff, Stop.patience)
    end
    objective = Objective(net)
    state = make_state(VariableProjection(), objective, random_params(1, net))
    step(state, objective, n) = (for _ in 1:n; step!(state, objective, VariableProjection()); end)
    step(state, objective, 2)
    @test (@allocated step(state, objective, 20)) == 0
end

@testset "where variable projection does not apply" begin
    X = randn(MersenneTwister(1), 2, 20)
    Y = sum(X; dims=1)
    net(; layers=((2, tanh, true), (1, identity, true)), options...) =
        Net(; layers=layers, input=X, target=Y, options...)
    @test separable(net())
    for other in (net(l2=1e-3), net(maxnorm=1.0), net(merge=(1, 1, 2, 0.1)), net(layers=((1, identity, true),)),
                  net(layers=((2, tanh, true), (1, tanh, true))))
        @test !separable(other)
        @test_throws ArgumentError minimize(other, random_params(1, other); optim_solver=VariableProjection())
        @test minimize(other, random_params(1, other); maxiterations=30).loss < loss(other, random_params(1, other))
    end
end

@testset "auto" begin
    # narrow curved valleys from random starts: cheaper than the trust region, in gradients
    net = student(2, tanh; N=200, noise=0.2)
    price = MLPGF.hessian_price(n_params(net))
    cost(r) = r.nfev + price * r.nhev
    trust, auto = Float64[], Float64[]
    for seed in 1:6
        x0 = random_params(seed, net)
        push!(trust, cost(minimize(net, x0; optim_solver=NewtonTrustRegion(), min_gnorm=1e-9, maxiterations=3000)))
        r = minimize(net, x0; min_gnorm=1e-9, maxiterations=6000)
        @test r.gnorm <= 1e-9
        @test minimize(net, x0; min_gnorm=1e-9, maxiterations=6000).x == r.x
        push!(auto, cost(r))
    end
    # 1.5 times on the data that Julia 1.5 draws, 1.2 times on those of Julia 1.12
    @test sum(log, auto) < sum(log, trust) - 6 * log(1.1)
    # no Hessian for many parameters
    X = randn(MersenneTwister(1), 20, 16)
    wide = Net(layers=((80, tanh, true), (1, identity, true)), input=X, target=sum(X; dims=1))
    @test n_params(wide) > MLPGF.DENSE_PARAMETERS
    r = minimize(wide, random_params(1, wide); maxiterations=20)
    @test r.nhev == 0 && r.optim_solver == "auto"
end
