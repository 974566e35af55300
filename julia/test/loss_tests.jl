using MLPGF, LinearAlgebra, Random, Test
import MLPGF: Softmax

Base.include(@__MODULE__, joinpath(@__DIR__, "finite_differences.jl"))

function check(; tol = 1e-12, scale = 0.5, prepare = identity, problem...)
    net, exact = prepare(Net(; problem...)), prepare(Net(; problem..., T = BigFloat))
    θ = scale * randn(MersenneTwister(2), n_params(net))
    v = randn(MersenneTwister(3), length(θ))
    g, H = finite_differences(exact, big.(θ))
    @test relative(gradient(exact, big.(θ)), g) < 1e-40
    @test relative(hessian(exact, big.(θ)), H) < 1e-40
    @test loss(net, θ) ≈ loss(exact, big.(θ)) rtol = 1e-13
    @test relative(gradient(net, θ), g) < tol
    @test relative(hessian(net, θ), H) < tol
    @test issymmetric(hessian(net, θ))
    @test relative(hvp(net, θ, v), H * v) < tol
    for (l, block) in enumerate(hessian_blocks(net, θ))
        range = net.layers[l].offset .+ (1:n_params(net.layers[l]))
        @test relative(block, hessian(net, θ)[range, range]) < 1e-12
    end
    return net, θ
end

"With the scale of correlated outputs held near that of other parameters."
hold_scale(net) = MLPGF.held_scale(net, eltype(net.blocks[1].w).(0.4 .* sin.(1:n_params(net))))

rng = MersenneTwister(0)
const X, Y = randn(rng, 3, 21), randn(rng, 2, 21)
const W = 0.5 .+ rand(rng, 21)
const LABELS = rand(rng, 1:3, 21)
const CHANCES = (p = rand(rng, 3, 21); p ./ sum(p, dims = 1))

@testset "losses and regularisers" begin
    hidden = ((4, softplus, true), (3, tanh, false))
    @testset "nll, labels" begin
        net, θ = check(layers = (hidden..., (3, "softmax", true)), input = X, target = LABELS, loss = "nll",
                       weights = W)
        p = predict(net, θ)
        @test all(sum(p, dims = 1) .≈ 1)
        @test loss(net, θ) ≈ -sum(W[i] * log(p[LABELS[i], i]) for i in 1:21) / 21 rtol = 1e-13
    end
    @testset "nll, probabilities, no hidden layer" begin
        check(layers = ((3, "softmax", true),), input = X, target = CHANCES, loss = "nll")
        check(layers = ((3, "softmax", false),), input = X, target = 2 .* CHANCES, loss = "nll", weights = W)
    end
    @testset "nll, logits" begin
        net, θ = check(layers = (hidden..., (3, identity, true)), input = X, target = LABELS, loss = "nll", weights = W)
        softmax = Net(layers = (hidden..., (3, "softmax", true)), input = X, target = LABELS, loss = "nll", weights = W)
        @test loss(net, θ) == loss(softmax, θ)
        logits = predict(net, θ)
        @test exp.(logits) ./ sum(exp, logits, dims = 1) ≈ predict(softmax, θ)
    end
    shallow, deep = ((2, tanh, true), (2, identity, true)), (hidden..., (2, tanh, true))
    @testset "own losses, $(length(layers)) layers" for layers in (shallow, deep)
        own(f, y) = log(cosh(f - y)) + f^4 / 8
        net, θ = check(layers = layers, input = X, target = Y, loss = own, weights = W, l2 = 0.1)
        f = predict(net, θ)
        @test data_loss(net, θ) ≈ sum(W[i] * own(f[o, i], Y[o, i]) for o in 1:2, i in 1:21) / 21
        J = reshape(jacobian(net, θ), :, n_params(net))
        curvature = [W[i] * (sech(f[o, i] - Y[o, i])^2 + 3 / 2 * f[o, i]^2) / 21 for o in 1:2, i in 1:21]
        @test relative(gauss_newton(net, θ), J' * Diagonal(vec(curvature)) * J) < 1e-12
    end
    @testset "correlation, $(length(layers)) layers, $N samples" for (layers, N) in ((shallow, 21), (shallow, 300),
                                                                                     (deep, 21))
        x, y, w = repeat(X, 1, cld(N, 21))[:, 1:N], repeat(Y, 1, cld(N, 21))[:, 1:N], repeat(W, cld(N, 21))[1:N]
        x = x .+ 0.1 .* sin.(1:N)'
        net, θ = check(layers = layers, input = x, target = y, loss = "correlation", weights = w, l2 = 0.1)
        f, p = predict(net, θ), w ./ sum(w)
        r(a, b) = sum(p .* deviations(a) .* deviations(b))
        deviations(a) = a .- sum(p .* a)
        @test data_loss(net, θ) ≈ sum(1 - r(a, b) / sqrt(r(a, a) * r(b, b)) for (a, b) in zip(eachrow(f), eachrow(y)))
        layers == shallow &&
            check(layers = layers, input = x, target = y, loss = "correlation", weights = w, prepare = hold_scale)
        few = (input = x[:, 1:20], target = y[:, 1:20], weights = w[1:20])
        @test loss(MLPGF.on(net, few.input, few.target; weights = few.weights), θ) ==
              loss(Net(; layers = layers, loss = "correlation", l2 = 0.1, few...), θ)
    end
    @testset "extreme logits" begin
        net = Net(layers = ((3, "softmax", false),), input = X, target = LABELS, loss = "nll")
        θ = fill(0.0, 9)
        θ[1:3] .= 1e5
        @test isfinite(loss(net, θ)) && all(isfinite, gradient(net, θ)) && all(isfinite, hessian(net, θ))
    end
    @testset "regularisers, depth $(length(layers))" for layers in (((2, tanh, true), (2, identity, true)),
                                                                     ((2, softplus, true), (1, identity, true)))
        y = Y[1:last(layers)[1], :]
        check(layers = layers, input = X, target = y, l2 = 0.3)
        check(layers = layers, input = X, target = y, maxnorm = 0.01)
        check(layers = layers, input = X, target = y, merge = (1, 1, 2, 0.7))
        net, θ = check(layers = layers, input = X, target = y, l2 = 0.1, maxnorm = 0.02, merge = [(1, 2, 1, 0.5)],
                       weights = W)
        n = n_params(net)
        w = [θ[1:3]; θ[7]], [θ[4:6]; θ[8]]
        @test loss(net, θ) - data_loss(net, θ) ≈
              0.05 * sum(abs2, θ) + max(0, sum(abs2, θ) / 2n - 0.02)^3 / 3 + 0.25 * sum(abs2, w[1] - w[2]) rtol = 1e-12
        plain = Net(layers = layers, input = X, target = y, weights = W)
        @test data_loss(net, θ) == loss(plain, θ)
    end
    @testset "output factor" begin
        check(layers = ((4, softplus, true), (1, identity, true)), input = X, target = Y[1:1, :], output_factor = 0.25)
        check(layers = ((4, softplus, true), (2, tanh, true)), input = X, target = Y, output_factor = 0.5)
        net, θ = check(layers = ((4, tanh, true), (3, "softmax", true)), input = X, target = LABELS, loss = "nll",
                       output_factor = 2)
        one = Net(layers = ((4, tanh, true), (2, identity, true)), input = X, target = Y)
        half = Net(layers = ((4, tanh, true), (2, identity, true)), input = X, target = Y, output_factor = 0.5)
        θ = randn(MersenneTwister(1), n_params(one))
        @test predict(half, θ) ≈ predict(one, θ) / 2
    end
end

@testset "activations" begin
    custom(x) = x * exp(-x^2)
    kinked(x) =
        max(x,
            0.1x) + abs(x) / (1 + x^2) + sqrt(1 + x^2)^3 + sin(x)cos(2x) + 2.0^x - log1p(x^2) + atan(x) + tanh(x) +
                x^2.5 * 0
    for f in ("normal_cdf", "gelu", "silu", "selu", "square", "cube", "exp", Poly(0.5, -1, 0.3, 0.2), custom,
              x -> x / (1 + abs(x)), x -> softplus(2x) - 3, x -> sinh(x) * cosh(x) + asinh(x) + expm1(x),
              (softplus, "relu", "relu", Poly(1, 2)))
        @testset "$f" begin
            check(layers = ((4, f, true), (2, identity, true)), input = X, target = Y, weights = W)
            f isa Union{Tuple,Poly} ||
                check(layers = ((3, f, false), (1, f, true)), input = X, target = Y[1:1, :], scale = 0.3)
        end
    end
    @testset "BigFloat is the reference of Float64 and Float32" begin
        xs = [range(-30.1, 30.3, length = 2001); 10.0 .^ (-20:0.5:1.4); -10.0 .^ (-20:0.5:1.4)]
        # |error| <= 6 eps max(|f|, 0.2): relative, except near zeros of f, f' and f''.
        for (name, a) in MLPGF.ACTIVATIONS, T in (Float64, Float32), order in 1:3
            worst = maximum(T.(xs)) do x
                y = MLPGF.derivatives(a, big(x))[order]
                isfinite(T(y)) ? Float64(abs(MLPGF.derivatives(a, x)[order] - y) / (eps(T) * max(abs(y), 0.2))) : 0.0
            end
            @test worst < 6
        end
    end
    @testset "vectors compute what numbers compute" begin
        for (name, a) in MLPGF.ACTIVATIONS, T in (Float64, Float32)
            h = T.(range(-40, 40, length = 48))
            A, D, S = reshape(copy(h), :, 1), zeros(T, 48, 1), zeros(T, 48, 1)
            MLPGF.activate!(a, Val(2), A, D, S, 48, 1)
            for (r, x) in enumerate(h), (y, z) in zip((A[r], D[r], S[r]), MLPGF.derivatives(a, x))
                @test y == z || abs(y - z) <= 2 * eps(T) * abs(z)      # fused or not, where the compiler has the choice
            end
        end
    end
    @testset "relative accuracy in the tails" begin
        for x in range(-37.0, -1.0, length = 500)
            Φ, φ = MLPGF.normal_cdf_pdf(big(x))
            @test MLPGF.normal_cdf_pdf(x)[1] ≈ Φ rtol = 1e-15
            @test MLPGF.derivatives(gelu, x)[1] ≈ x * Φ rtol = 1e-15
            @test MLPGF.derivatives(softplus, x)[1] ≈ log1p(exp(big(x))) rtol = 1e-15
            @test MLPGF.derivatives(sigmoid, x)[2] ≈ exp(big(x)) / (1 + exp(big(x)))^2 rtol = 2e-15
        end
    end
    @testset "mixed units" begin
        p = (layers = ((5, (tanh, "relu", "relu", softplus, tanh), true), (1, identity, true)), input = X,
             target = Y[1:1, :])
        net = Net(; p...)
        @test length(net.layers[1].columns) == 4
        θ = randn(MersenneTwister(4), n_params(net))
        (W1, b1), (W2, b2) = unpack(net, θ)
        h = W1 * X .+ b1
        a = vcat(tanh.(h[1:1, :]), max.(h[2:3, :], 0), log1p.(exp.(h[4:4, :])), tanh.(h[5:5, :]))
        @test predict(net, θ) ≈ W2 * a .+ b2 rtol = 1e-13
    end
end

@testset "Jacobian, Gauss–Newton, tangent kernel" begin
    layers = ((4, tanh, true), (3, "sigmoid2", false), (2, "sigmoid", true))
    net, exact = Net(layers = layers, input = X, target = Y, weights = W), Net(layers = layers, input = X, target = Y,
                                                                               weights = W, T = BigFloat)
    θ = randn(MersenneTwister(2), n_params(net)) / 2
    h = big(10.0)^-25
    J = jacobian(net, θ)
    for i in 1:length(θ)
        e = [j == i ? h : zero(h) for j in 1:length(θ)]
        @test relative(J[:, :, i], (predict(exact, θ + e) - predict(exact, θ - e)) / 2h) < 1e-12
    end
    G = gauss_newton(net, θ)
    @test relative(G, sum(2W[n] / 21 * J[:, n, :]' * J[:, n, :] for n in 1:21)) < 1e-12
    @test issymmetric(G)
    flat = reshape(J, :, length(θ))
    @test tangent_kernel(net, θ) ≈ flat * flat'
    soft = Net(layers = ((4, tanh, true), (3, "softmax", true)), input = X, target = LABELS, loss = "nll")
    θ = randn(MersenneTwister(2), n_params(soft)) / 2
    J, p = jacobian(soft, θ), predict(soft, θ)
    @test relative(gauss_newton(soft, θ),
                   sum(J[:, n, :]' * (Diagonal(p[:, n]) - p[:, n] * p[:, n]') * J[:, n, :] / 21 for n in 1:21)) < 1e-12
end

@testset "extreme inputs" begin
    xs = [s * x for s in (-1, 1) for x in (0.0, 1e-300, 1e-8, 30.0, 40.0, 709.0, 746.0, 800.0, 1e4, 1e8, 1e100, 1e160,
                                           1e300)]
    for (name, a) in MLPGF.ACTIVATIONS, x in xs, T in (Float64, Float32)
        isfinite(T(x)) || continue
        for (y, exact) in zip(MLPGF.derivatives(a, T(x)), MLPGF.derivatives(a, big(T(x))))
            isfinite(T(exact)) && @test isfinite(y) && abs(y - exact) <= 1e2 * eps(T) * max(abs(exact), 1)
        end
    end
    # Weights of 1e±8: what is finite in exact arithmetic is finite here.
    for name in sort!(collect(keys(MLPGF.ACTIVATIONS))), nll in (false, true), big_first in (false, true)
        (name == "softmax" || name == "exp" && big_first) && continue      # exp(1e8) itself is no float
        out = nll ? (3, "softmax", true) : (2, "identity", true)
        p = (layers = ((3, name, true), out), input = X, target = nll ? LABELS : Y, loss = nll ? "nll" : "mse")
        net, exact = Net(; p...), Net(; p..., T = BigFloat)
        θ = randn(MersenneTwister(9), n_params(net))
        θ[1:12] .*= big_first ? 1e8 : 1e-8
        θ[13:end] .*= big_first ? 1e-8 : 1e8
        for f in (loss, gradient, hessian)
            @test all(!isfinite(Float64(e)) || isfinite(y) for (y, e) in zip(f(net, θ), f(exact, big.(θ))))
        end
    end
end

@testset "the order of the samples" begin
    order = randperm(MersenneTwister(5), 21)
    p = (layers = ((4, tanh, true), (2, identity, true)),)
    a = Net(; p..., input = X, target = Y, weights = W)
    b = Net(; p..., input = X[:, order], target = Y[:, order], weights = W[order])
    θ = randn(MersenneTwister(1), n_params(a))
    @test loss(a, θ) ≈ loss(b, θ) rtol = 1e-14
    @test gradient(a, θ) ≈ gradient(b, θ) rtol = 1e-13
    @test hessian(a, θ) ≈ hessian(b, θ) rtol = 1e-13
end

@testset "nets without data, and other data" begin
    layers = ((3, tanh, true), (1, identity, true))
    empty = Net(layers = layers, n_features = 3)
    full = Net(layers = layers, input = X, target = Y[1:1, :], l2 = 0.1)
    θ = random_params(3, empty)
    @test θ == random_params(3, full)
    @test predict(empty, θ, X) == predict(full, θ)
    for f in (loss, gradient, hessian, jacobian, predict)
        @test_throws ArgumentError f(empty, θ)
    end
    @test loss(MLPGF.on(empty, X, Y[1:1, :]), θ) ≈ data_loss(full, θ)
    @test loss(MLPGF.on(full, X[:, 1:5], Y[1:1, 1:5]),
               θ) ≈ loss(Net(layers = layers, input = X[:, 1:5], target = Y[1:1, 1:5], l2 = 0.1), θ)
end

@testset "bad nets" begin
    good = ((3, tanh, true), (1, identity, true))
    for (problem, message) in (
            ((layers = ((2, tanh, true),), input = X, target = LABELS, loss = "nll"), "identity for logits"),
            ((layers = ((2, "softmax", true),), input = X, target = Y), "nll"),
            ((layers = (("softmax" |> s -> (3, s, true)), (1, identity, true)), input = X, target = Y[1:1, :]),
             "output layer"),
            ((layers = ((2, "softmax", true),), input = X, target = LABELS, loss = "nll"), "from 1 to 2"),
            ((layers = ((3, "softmax", true),), input = X, target = -CHANCES, loss = "nll"), "negative"),
            ((layers = good, input = X, target = Y[1:1, :], loss = "mae"), "mae"),
            ((layers = good, input = X, target = Y[1:1, :], l2 = -1), "l2"),
            ((layers = good, input = X, target = Y[1:1, :], merge = (1, 1, 9, 0.1)), "merge"),
            ((layers = ((3, (tanh, tanh), true), (1, identity, true)), input = X, target = Y[1:1, :]), "2 activations"),
            ((layers = good, input = X, target = Y[1:1, :], output_factor = 0), "output_factor"))
        err = try
            Net(; problem...)
            nothing
        catch e
            e
        end
        @test err isa ArgumentError && occursin(message, err.msg)
    end
end
