using MLPGF, LinearAlgebra, Random, Test

Base.include(@__MODULE__, joinpath(@__DIR__, "finite_differences.jl"))

const SHAPES = [(1, 1, (1,)), (7, 3, (5, 4, 2)), (33, 2, (8,)), (17, 2, (3, 3, 3)), (20, 1, (4,)), (9, 18, (3,))]
const NAMES = ["softplus", "sigmoid", "tanh", "sigmoid2", "g", "identity", "relu"]

problem(T, N, D, widths, name; O = 1, bias = true, out = "identity", rng = MersenneTwister(hash((N, D, widths)) % 1000)) =
    (layers = (((w, name, bias) for w in widths)..., (O, out, bias)), input = T.(randn(rng, D, N)), target = T.(randn(rng, O, N)))

@testset "derivatives" begin
    @testset "$N samples, $D features, $widths, $name, $O outputs, bias $bias, out $out" for
            (N, D, widths) in SHAPES, (name, O, bias, out) in (("softplus", 1, true, "identity"), ("tanh", 2, false, "identity"),
                                                               ("g", 2, true, "sigmoid"))
        p = problem(Float64, N, D, widths, name; O = O, bias = bias, out = out)
        weights = 0.5 .+ rand(MersenneTwister(1), N)
        net = Net(; p..., weights = weights)
        θ = randn(MersenneTwister(2), n_params(net)) / 2
        exact = Net(; p..., weights = weights, T = BigFloat)
        length(θ) > 60 && continue
        g, H = finite_differences(exact, big.(θ))
        @test relative(gradient(exact, big.(θ)), g) < 1e-40
        @test relative(hessian(exact, big.(θ)), H) < 1e-40
        @test relative(gradient(net, θ), g) < 1e-13
        @test relative(hessian(net, θ), H) < 1e-13
        @test issymmetric(hessian(net, θ))
        v = randn(MersenneTwister(3), length(θ))
        @test relative(hvp(net, θ, v), H * v) < 1e-13
        @test loss(net, θ) ≈ loss(exact, big.(θ)) rtol = 1e-14
    end
    @testset "$name" for name in NAMES
        p = problem(Float64, 40, 2, (4, 3), name; O = 2)
        net, exact = Net(; p...), Net(; p..., T = BigFloat)
        θ = randn(MersenneTwister(5), n_params(net))
        g, H = finite_differences(exact, big.(θ))
        @test relative(gradient(net, θ), g) < 1e-13
        @test relative(hessian(net, θ), H) < 1e-12
        net32 = Net(; p..., T = Float32)
        @test relative(gradient(net32, Float32.(θ)), g) < 1e-4
        @test relative(hessian(net32, Float32.(θ)), H) < 1e-4
    end
    @testset "BLAS sizes, many blocks" begin
        p = problem(Float64, 1000, 9, (12, 10), "softplus"; O = 9)
        net, exact = Net(; p...), Net(; p..., T = BigFloat)
        θ = randn(MersenneTwister(6), n_params(net)) / 3
        v = randn(MersenneTwister(7), n_params(net))
        h = big(10.0)^-25
        @test relative(gradient(net, θ), gradient(exact, big.(θ))) < 1e-13
        dg = (gradient(exact, big.(θ) + h * v) - gradient(exact, big.(θ) - h * v)) / 2h
        @test relative(hvp(net, θ, v), dg) < 1e-13
        @test relative(hessian(net, θ) * v, dg) < 1e-12
    end
end

@testset "no allocation" begin
    for (N, D, widths, O) in ((1000, 2, (8,), 1), (300, 3, (5, 4), 2), (500, 10, (16, 16), 10))
        p = problem(Float64, N, D, widths, "softplus"; O = O)
        net = Net(; p...)
        θ = randn(MersenneTwister(6), n_params(net))
        G, H = similar(θ), zeros(n_params(net), n_params(net))
        allocated(f, args...) = (f(args...); @allocated f(args...))
        @test allocated(loss, net, θ) <= 16           # the boxed result
        @test allocated(gradient!, G, net, θ) == 0
        @test allocated(hvp!, G, net, θ, θ) == 0
        @test allocated(hessian!, H, net, θ) == 0
    end
end

@testset "threads" begin
    p = problem(Float64, 3000, 3, (5, 4), "tanh"; O = 2)
    single = problem(Float64, 3000, 2, (6,), "softplus")
    for q in (p, single)
        one = Net(; q...)
        θ, v = randn(MersenneTwister(1), n_params(one)), randn(MersenneTwister(2), n_params(one))
        for threads in 1:Threads.nthreads()
            net = Net(; q..., threads = threads)
            @test length(net.shares) == threads
            @test loss(net, θ) ≈ loss(one, θ) rtol = 1e-13
            @test relative(gradient(net, θ), gradient(one, θ)) < 1e-13
            @test relative(hessian(net, θ), hessian(one, θ)) < 1e-13
            @test relative(hvp(net, θ, v), hvp(one, θ, v)) < 1e-13
            for f in (loss, gradient, hessian)
                @test all(f(net, θ) == f(net, θ) for _ in 1:20)
            end
        end
    end
    @test length(Net(; problem(Float64, 3, 2, (6,), "softplus")..., threads = Threads.nthreads()).shares) == 1
    @test_throws ArgumentError Net(; p..., threads = Threads.nthreads() + 1)
    @test_throws ArgumentError Net(; p..., threads = 0)
end
