using MLPGF, LinearAlgebra, Random, Test

Base.include(@__MODULE__, joinpath(@__DIR__, "finite_differences.jl"))

const SHAPES = [(1, 1, (1,)), (7, 3, (5, 4, 2)), (33, 2, (8,)), (17, 2, (3, 3, 3)), (20, 1, (4,)), (9, 18, (3,)),
                (12, 3, (5,)), (10, 2, (3, 1))]
const NAMES = ["softplus", "sigmoid", "tanh", "sigmoid2", "g", "identity", "relu"]

problem(T, N, D, widths, name; O = 1, bias = true, out = "identity",
        rng = MersenneTwister(hash((N, D, widths)) % 1000)) =
    (layers = (((w, name, bias) for w in widths)..., (O, out, bias)), input = T.(randn(rng, D, N)),
     target = T.(randn(rng, O, N)))

@testset "derivatives" begin
    @testset "$N samples, $D features, $widths, $name, $O outputs, bias $bias, out $out" for
            (N, D, widths) in SHAPES, (name, O, bias, out) in (("softplus", 1, true, "identity"),
                                                               ("tanh", 2, false, "identity"),
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
    X, Y = randn(MersenneTwister(4), 3, 300), randn(MersenneTwister(5), 2, 300)
    for loss in ("nll", "correlation", (f, y) -> log(cosh(f - y)))
        net = Net(layers = ((4, tanh, true), (2, identity, true)), input = X, target = abs.(Y), loss = loss)
        θ = randn(MersenneTwister(6), n_params(net))
        G, H = similar(θ), zeros(n_params(net), n_params(net))
        allocated(f, args...) = (f(args...); f(args...); @allocated f(args...))
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
            @test length(net.crew.workers) == threads
            @test all((loss(net, θ), gradient(net, θ), hessian(net, θ), hvp(net, θ, v)) ==
                      (loss(one, θ), gradient(one, θ), hessian(one, θ), hvp(one, θ, v)) for _ in 1:20)
        end
    end
    @test length(Net(; problem(Float64, 3, 2, (6,), "softplus")..., threads = Threads.nthreads()).crew.workers) == 1
    @test_throws ArgumentError Net(; p..., threads = Threads.nthreads() + 1)
    @test_throws ArgumentError Net(; p..., threads = 0)
end

@testset "products over samples" begin
    rng = MersenneTwister(8)
    for T in (Float64, Float32), n in (16, 48, 64, 256), p in (1, 3, 4, 5, 9, 13, 66), q in (1, 2, 3, 10, 11)
        A, B = randn(rng, T, n, MLPGF.columns_for(p + 1)), randn(rng, T, n, q + 1)
        C = randn(rng, T, 2 + (p + 1) * q)                 # C begins at the third number, columns p + 1 apart
        exact = copy(C)
        for j in 1:q, i in 1:p
            exact[2+i+(p+1)*(j-1)] += sum(big.(A[:, 1+i]) .* big.(B[:, 1+j]))
        end
        MLPGF.gram!(MLPGF.Panel(C, 3, p + 1), p, q, MLPGF.Panel(A, 2), MLPGF.Panel(B, 2), n)
        @test C ≈ exact rtol = 20 * eps(T)
    end
    for T in (Float64, Float32), n in (16, 256), p in (1, 5, 41, 70)
        Z = randn(rng, T, n, MLPGF.columns_for(p))
        exact = LowerTriangular(Z[:, 1:p]' * Z[:, 1:p])
        @test LowerTriangular(MLPGF.gram!(zeros(T, p, p), Z, n)) ≈ exact rtol = 20 * eps(T)
    end
    for T in (Float64, Float32), m in (1, 3, 10, 33), p in (1, 4, 5, 12, 13, 41, 70)
        J = randn(rng, T, MLPGF.LANES * cld(m, MLPGF.LANES), MLPGF.columns_for(p))
        Z = MLPGF.transpose_into!(zeros(T, MLPGF.rows_for(p), size(J, 1)), J, m, p)
        @test Z[1:p, 1:m] == J[1:m, 1:p]'
        exact = LowerTriangular(J[1:m, 1:p]' * J[1:m, 1:p])
        C = MLPGF.outer!(fill(T(NaN), p, p), Z, m, true)
        @test LowerTriangular(C) ≈ exact rtol = 20 * eps(T)
        @test LowerTriangular(MLPGF.outer!(C, Z, m, false)) ≈ 2exact rtol = 20 * eps(T)
        H = randn(rng, T, p, p)
        @test MLPGF.mirror!(copy(H)) == Symmetric(H, :L)
    end
    # C = c + A W, W row by row and column by column, with and without constants; sizes on both sides of every crossover
    for T in (Float64, Float32), n in (16, 64, 256), (k, m) in ((1, 1), (1, 7), (3, 9), (9, 3), (4, 4), (7, 6),
                                                                (300, 17))
        A, θ = randn(rng, T, n, k + 1), randn(rng, T, k * m + m + 2)
        for (si, sj) in ((1, k), (m, 1)), constant in (true, false)
            W = [θ[2+si*(i-1)+sj*(j-1)] for i in 1:k, j in 1:m]
            c = constant ? θ[k*m+2:k*m+m+1] : zeros(T, m)
            weights = MLPGF.Weights(θ, 2, si, sj, constant ? k * m + 1 : -1)
            C = MLPGF.combine!(fill(T(NaN), n, m), m, A, k, weights, n)
            @test C ≈ A[:, 1:k] * W .+ c' rtol = 20 * eps(T)
        end
    end
end

@testset "users' activations with rational and irrational numbers, $T" for T in (Float64, Float32)
    at(f, x) = MLPGF.derivatives(MLPGF.Custom(f, MLPGF.Jets()), T(x))
    close(a, b) = all(isa.(a, T)) && all(abs.(a .- b) .<= 8 * eps(T) .* abs.(b))
    e = exp(T(0.7))
    @test close(at(x -> ℯ^x, 0.7), (e, e, e))
    @test close(at(x -> x^(3//2), 0.49), (0.343, 1.05, 0.75 / 0.7))
    @test at(x -> x < π ? x^2 : x, 1) === T.((1, 2, 2)) && at(x -> x < π ? x^2 : x, 4) === T.((4, 1, 0))
    @test at(x -> π <= x ? x : 3x, 4) === T.((4, 1, 0)) && at(x -> x == π ? x : 3x, 4) === T.((12, 3, 0))
    @test at(x -> isless(x, 2.0) ? x : 3x, 1) === T.((1, 1, 0)) && at(x -> isless(2.0, x) ? x : 3x, 1) === T.((3, 3, 0))
end
