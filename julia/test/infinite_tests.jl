using MLPGF, LinearAlgebra, Random, Test

const NAMES = ("relu", "softplus", "sigmoid", "tanh", "sigmoid2", "normal_cdf", "gelu", "silu", "selu", "square",
               "cube",
               "exp", "g", "identity")
relative(a, b) = maximum(abs.(a .- b)) / max(maximum(abs, b), 1e-300)

function shallow(f, k, D; O=1, bias=(true, true), T=Float64)
    return Net(layers=((k, f, bias[1]), (O, "identity", bias[2])), n_features=D, T=T)
end

"A student and a teacher, their parameters of hidden weights times `scale`."
function problem(teacher_f, student_f; D=3, k=2, m=3, O=1, bias=(true, true), scale=1.0, seed=1)
    rng = MLPGF.Xoshiro256(seed)                 # the same numbers with every version of Julia
    teacher, student = shallow(teacher_f, m, D; O=O, bias=bias), shallow(student_f, k, D; O=O, bias=bias)
    draw(net, units) = [(i <= units * D ? scale : 1.0) * MLPGF.normal!(rng) for i in 1:n_params(net)]
    return InfiniteNet(TeacherNet(teacher, draw(teacher, m)), student), draw(student, k)
end

"Central differences of fourth order."
function differences(f, x; h=1e-3)
    e(i) = [j == i ? h : 0.0 for j in eachindex(x)]
    return reduce(hcat, [(8 * (f(x + e(i)) - f(x - e(i))) - (f(x + 2e(i)) - f(x - 2e(i)))) / 12h for i in eachindex(x)])
end

"Tanh-sinh quadrature of f on [a, b] in 256 bits."
function quadrature(f, a, b)
    step, s = big(2.0)^-6, big(0.0)
    for t in step*(-320:320)
        y = big(pi) / 2 * sinh(t)
        s += cosh(t) / cosh(y)^2 * f((a + b) / 2 + (b - a) / 2 * tanh(y))
    end
    return s * step * big(pi) / 4 * (b - a)
end
exact_owens_t(h, a) = quadrature(x -> exp(-big(h)^2 * (1 + x^2) / 2) / (1 + x^2), big(0.0), big(a)) / 2big(pi)
function exact_cdf(h, k, ρ)                      # E over X ≤ h of P(Y ≤ k | X)
    s = sqrt((1 - big(ρ)) * (1 + big(ρ)))
    return quadrature(x -> exp(-x^2 / 2) * MLPGF.normal_cdf_pdf((k - ρ * x) / s)[1], big(-15.0),
                      big(h)) / sqrt(2big(pi))
end

@testset "bivariate normal and Owen's T" begin
    for h in (0.0, 1e-6, 0.3, 1.0, 2.5, 6.0), a in (-3.0, -1.0, 0.2, 1.0, 1.7, 20.0)
        @test abs(owens_t(h, a) - exact_owens_t(h, a)) <= 5e-17
        @test owens_t(h, a) ≈ Float64(exact_owens_t(h, a)) rtol = 2e-14
    end
    for (h, k, ρ) in ((0.3, -0.7, 0.5), (-1.0, -1.2, 0.8), (2.0, 1.0, -0.9), (-3.0, -2.5, 0.95), (-0.2, 0.1, -0.3),
                      (-6.0, -5.0, 0.6))
        @test bivariate_normal_cdf(h, k, ρ) ≈ Float64(exact_cdf(h, k, ρ)) rtol = 1e-13 atol = 1e-17
    end
    for ρ in (-1.0, -0.9, -1e-3, 0.0, 0.4, 0.99, 1 - 1e-12, 1.0)
        @test bivariate_normal_cdf(0, 0, ρ) ≈ 1 / 4 + asin(ρ) / 2pi atol = 1e-16
        @test bivariate_normal_cdf(0.7, -1.2, ρ) + bivariate_normal_cdf(0.7, 1.2, -ρ) ≈
              bivariate_normal_cdf(0.7, 30.0, 0.0) atol = 2e-16
    end
    @test bivariate_normal_cdf(1.3, 0.2, 1) ≈ bivariate_normal_cdf(0.2, 40, 0) atol = 1e-16
    below(h) = bivariate_normal_cdf(h, 40, 0)
    @test bivariate_normal_cdf(2.5, -2, -1) ≈ below(-2) - below(-2.5) atol = 1e-16
    @test abs(bivariate_normal_cdf(1.3, -2, -1)) <= 1e-16
    @test owens_t(0.4, Inf) ≈ bivariate_normal_cdf(-0.4, 40, 0) / 2 atol = 1e-16
    @test_throws DomainError bivariate_normal_cdf(0, 0, 1.1)
end

@testset "derivatives of $teacher and $student, $O outputs, biases $bias, norms × $scale" for
        (teacher, student, D, k, O, bias, scale) in (
            ("softplus", "softplus", 9, 3, 1, (false, false), 1.0), ("relu", "relu", 3, 2, 2, (true, true), 1.0),
            ("sigmoid2", "normal_cdf", 2, 2, 1, (true, false), 2.0), ("tanh", "tanh", 2, 3, 1, (true, true), 5.0),
            ("exp", "tanh", 2, 1, 1, (true, true), 1.0), ("cube", "exp", 3, 2, 2, (false, true), 0.5),
            ("selu", "selu", 2, 2, 1, (true, true), 4.0), ("relu", "gelu", 1, 2, 3, (true, true), 1.0),
            (("relu", Poly(1, 2, 3), x -> x * sin(x)), ("g", "silu"), 2, 2, 1, (true, true), 1.0))
    net, θ = problem(teacher, student; D=D, k=k, O=O, bias=bias, scale=scale)
    g, H = gradient(net, θ), hessian(net, θ)
    @test relative(g, vec(differences(x -> loss(net, x), θ))) < 1e-8
    @test relative(H, differences(x -> gradient(net, x), θ)) < 1e-8
    @test issymmetric(H)
    v = randn(MersenneTwister(2), length(θ))
    @test relative(hvp(net, θ, v), H * v) < 1e-13
    @test MLPGF.data_terms(net, θ) ≈ [loss(net, θ), maximum(abs, g)]
    first_block, second_block = MLPGF.hessian_blocks(net, θ)
    @test first_block == H[1:k*(D+bias[1]), 1:k*(D+bias[1])] &&
        second_block == H[k*(D+bias[1])+1:end, k*(D+bias[1])+1:end]
end

@testset "mixed rules, units that meet, vanish or oppose" begin
    # one hidden unit each, against a Gauss-Hermite rule in the plane
    rng = MersenneTwister(3)
    for f in ("softplus", "gelu", "g", "exp", "sigmoid2"), g in ("softplus", "tanh", "cube", "normal_cdf")
        student, teacher = shallow(f, 1, 2), shallow(g, 1, 2)
        for w2 in ([0.4, 0.0], [-0.2, 0.0], [0.0, 0.0], [0.2, 0.3])
            r = f == "g" ? 0.1 : 0.3                         # where a Gauss rule converges fast
            target, θ = TeacherNet(teacher, [w2; randn(rng); 1.0; 0.3]), [r, 0.0, randn(rng), 1.0, -0.2]
            net = InfiniteNet(target, student)
            exact = gauss_hermite_net(target, student; order=60)
            size = loss(exact, θ) + 1
            @test loss(net, θ) ≈ loss(exact, θ) atol = 1e-10 * size
            @test gradient(net, θ) ≈ gradient(exact, θ) atol = 1e-9 * size
            @test hessian(net, θ) ≈ hessian(exact, θ) atol = 1e-8 * size
        end
    end
    # the student is the teacher: the loss and its gradient are zero, with several units to match
    for f in NAMES, scale in (1.0, 6.0)
        f == "exp" && scale > 1 && continue
        net, _ = problem(f, f; D=3, k=3, m=3, scale=scale)
        units = net.units[4:6]
        W = reduce(vcat, [u.r * u.n for u in units])
        θ = [W; [u.b for u in units]; -vec(net.outputs[:, 4:6]); -net.teacher_offset]
        size = net.target + 1
        @test abs(loss(net, θ)) <= 1e-12 * size
        @test maximum(abs, gradient(net, θ)) <= 1e-11 * size
        @test eigmin(Symmetric(hessian(net, θ))) >= -1e-9 * size
    end
end

@testset "directions of relus that are equal up to round-off" begin
    for seed in 1:200, ε in (0.0, 1e-16, 1e-15, 1e-14, 1e-12, 1e-8)
        rng = MersenneTwister(seed)
        W, b, a = randn(rng, 3), randn(rng), randn(rng)
        one_unit = shallow("relu", 1, 3)
        away(x) = [v + ε * abs(v) * randn(rng) for v in x]
        net = InfiniteNet(TeacherNet(one_unit, [W; b; a; 0.1]), one_unit)
        θ = [away(W); b; a; 0.1]
        size = net.target + 1
        @test abs(loss(net, θ)) <= (1e-14 + ε^2 * 100) * size
        @test maximum(abs, gradient(net, θ)) <= (1e-13 + 100ε) * size
        # x₊ and (-x)₊ never meet, and x₊² + (-x)₊² = x²
        opposite = InfiniteNet(TeacherNet(one_unit, [-W; -b; a; 0.1]), one_unit)
        @test loss(opposite, θ) ≈ a^2 * (W' * W + b^2) rtol = 1e-13 + 100ε
    end
end

@testset "far outside: norms of 1000, units of norm zero, parameters that are no numbers" begin
    for f in NAMES
        f in ("exp", "cube", "square") && continue
        student = shallow(f, 2, 2; bias=(true, false))
        net = InfiniteNet(TeacherNet(student, [900.0, 1e3, 0.1, -4.0, 0.0, 3.0, 1.0, 0.5]), student)
        θ = [1e3, 900.0, 0.0, 0.0, 0.3, -0.1, 1.0, 2.0]
        X = randn(MersenneTwister(1), 2, 400_000)
        finite = MLPGF.on(student, X, TeacherNet(student, [900.0, 1e3, 0.1, -4.0, 0.0, 3.0, 1.0, 0.5])(X))
        @test loss(net, θ) ≈ loss(finite, θ) rtol = 0.03
        @test all(isfinite, hessian(net, θ))
        @test isnan(loss(net, [NaN; θ[2:end]])) && all(isnan, gradient(net, [Inf; θ[2:end]]))
    end
end

@testset "kinks of users' functions" begin
    leaky = activation(x -> max(x, x / 10))
    @test MLPGF.find_kinks(leaky)[1] == [0.0] && MLPGF.find_kinks(leaky)[2] ≈ [0.9]
    positions, jumps = MLPGF.find_kinks(activation(x -> abs(x - 0.7) + max(x + 2.25, 0.0)^2))
    @test positions ≈ [-2.25, 0.7] atol = 1e-9
    @test jumps ≈ [0.0, 2.0] atol = 1e-7
    @test isempty(MLPGF.find_kinks(activation(x -> tanh(50x)))[1])
    @test_throws ArgumentError MLPGF.find_kinks(activation(x -> x < 1 ? x : x + 1))
    # 0.9 relu(x) + x/10 by hand, against the closed form of relu
    W, b = [1.0, -0.4, 0.3, 2.0], [0.2, -0.7]
    parts = shallow(("relu", "relu", "identity", "identity"), 4, 2; bias=(true, false))
    whole = shallow(leaky, 2, 2; bias=(true, false))
    teacher = TeacherNet(shallow("tanh", 1, 2; bias=(true, false)), [0.3, 1.0, 0.1, 1.0])
    θ = [W; b; 1.0; -2.0]
    net, exact = InfiniteNet(teacher, whole), InfiniteNet(teacher, parts)
    φ = [W; W; b; b; 0.9; -1.8; 0.1; -0.2]
    @test loss(net, θ) ≈ loss(exact, φ) rtol = 1e-11
    g, h = gradient(net, θ), gradient(exact, φ)
    @test g[1:6] ≈ [h[1:4] + h[5:8]; h[9:10] + h[11:12]] rtol = 1e-10
    H, K = hessian(net, θ), hessian(exact, φ)
    same = [1 0; 0 1]
    P = [kron(ones(2), Matrix(I, 4, 4)) zeros(8, 2); zeros(4, 4) kron(ones(2), Matrix(I, 2, 2))]
    @test H[1:6, 1:6] ≈ P' * K[1:12, 1:12] * P rtol = 1e-9
end

@testset "no allocation" begin
    pairs = (("softplus", "softplus"), ("relu", "relu"), ("tanh", "selu"), ("exp", "sigmoid2"), ("g", "relu"))
    for (teacher, student) in pairs
        net, θ = problem(teacher, student; D=4, k=3, m=2, O=2, scale=4.0)
        G, H = similar(θ), zeros(length(θ), length(θ))
        allocated(f, args...) = (f(args...); f(args...); @allocated f(args...))
        @test allocated(loss, net, θ) <= 16                  # the boxed result
        @test allocated(gradient!, G, net, θ) == 0
        @test allocated(hvp!, G, net, θ, θ) == 0
        @test allocated(hessian!, H, net, θ) == 0
    end
end

@testset "number types, regularisers, output factors" begin
    net, θ = problem("tanh", "softplus")
    teacher = TeacherNet(shallow("tanh", 3, 3), Float32.(randn(MersenneTwister(1), 16)))
    student = shallow("softplus", 2, 3; T=Float32)
    single, double = InfiniteNet(teacher, student), InfiniteNet(teacher, shallow("softplus", 2, 3))
    @test loss(single, Float32.(θ)) isa Float32
    @test loss(single, Float32.(θ)) ≈ loss(double, Float64.(Float32.(θ))) rtol = 1e-6
    @test gradient(single, Float32.(θ)) ≈ gradient(double, Float64.(Float32.(θ))) rtol = 1e-6
    @test hessian(single, Float32.(θ)) ≈ hessian(double, Float64.(Float32.(θ))) rtol = 1e-6
    @test_throws ArgumentError InfiniteNet(teacher, shallow("softplus", 2, 3; T=BigFloat))

    layers = ((2, "softplus", true), (1, "identity", true))
    scaled = InfiniteNet(teacher, Net(layers=layers, n_features=3, l2=0.1, output_factor=0.5))
    φ = copy(θ)
    φ[end-2:end] ./= 2                           # half of the outgoing weights and bias
    @test loss(scaled, θ) ≈ loss(double, φ) + 0.05 * sum(abs2, θ) rtol = 1e-14
    @test MLPGF.data_loss(scaled, θ) ≈ loss(double, φ) rtol = 1e-14
    @test gradient(scaled, θ) ≈ vec(differences(x -> loss(scaled, x), θ)) rtol = 1e-9
    @test hessian(scaled, θ) ≈ differences(x -> gradient(scaled, x), θ) rtol = 1e-9
    @test hvp(scaled, θ, θ) ≈ hessian(scaled, θ) * θ rtol = 1e-13
end

@testset "odd activations whose biases have come down to round-off" begin
    for f in ("tanh", "sigmoid2"), bias in (0.0, 1e-300, 1e-18, -1e-12)
        teacher, student = shallow(f, 2, 2), shallow(f, 2, 2)
        net = InfiniteNet(TeacherNet(teacher, [0.6, -0.3, 0.2, 0.9, 0.0, bias, 1.0, -0.5, 0.1]), student)
        θ = [0.5, 0.1, -0.4, 0.7, bias, -bias, 0.8, 0.3, 0.0]
        @test gradient(net, θ) ≈ vec(differences(x -> loss(net, x), θ)) rtol = 1e-9
        @test loss(net, θ) ≈ loss(net, θ .+ [0, 0, 0, 0, 1e-9, 1e-9, 0, 0, 0]) rtol = 1e-8
        @test flow(net, θ; maxT=1.0).stopped_by == Stop.maxT
    end
end

@testset "solvers" begin
    net, θ = problem("tanh", "sigmoid"; D=2, k=2)       # a softplus student creeps along a valley to infinity
    res = train(net, random_params(3, net); maxT=100, maxtime_optim=20)
    @test res.ode.stopped_by == Stop.maxT
    @test res.gnorm < 1e-14
    @test eigmin(Symmetric(hessian(net, res.x))) > 1e-5
    @test predict(net, res.x, zeros(2, 1)) == predict(net.student, res.x, zeros(2, 1))
    stopped = flow(net, θ; monitor=Monitor((args...) -> Stop.interrupted; interval=0.0))
    @test stopped.stopped_by == Stop.interrupted
end

@testset "bad input" begin
    teacher = TeacherNet(shallow("tanh", 2, 3), ones(11))
    @test_throws ArgumentError InfiniteNet(teacher, ((2, "tanh", true), (2, "tanh", true), (1, "identity", true)))
    @test_throws ArgumentError InfiniteNet(teacher, ((2, "tanh", true), (1, "tanh", true)))
    @test_throws DimensionMismatch InfiniteNet(teacher, shallow("tanh", 2, 4))
    @test_throws DimensionMismatch InfiniteNet(teacher, shallow("tanh", 2, 3; O=2))
    @test_throws DimensionMismatch TeacherNet(shallow("tanh", 2, 3), ones(10))
    @test_throws ArgumentError TeacherNet(shallow("tanh", 2, 3), fill(NaN, 11))
    @test_throws DimensionMismatch loss(InfiniteNet(teacher, shallow("tanh", 1, 3)), ones(11))
    # too sharp for any trapezoidal rule, and no poles to know: an error, not a wrong number
    wild = InfiniteNet(teacher, shallow(x -> tanh(5000x), 1, 3))
    @test_throws ArgumentError loss(wild, fill(5.0, n_params(wild)))
end

@testset "Gauss-Hermite nets" begin
    for n in (1, 2, 7, 30, 200, 1000)
        x, w = gauss_hermite(n)
        @test sum(w) ≈ 1 rtol = 1e-15
        @test issorted(x) && x == -reverse(x)
        for k in 1:min(n - 1, 8)
            @test sum(w .* x .^ 2k) ≈ prod(1.0:2:2k-1) rtol = 1e-13
        end
    end
    for D in 1:3
        deep = Net(layers=((3, "tanh", true), (2, "tanh", true), (1, "identity", true)), n_features=D)
        teacher = TeacherNet(deep, random_params(1, deep))
        θ = random_params(2, deep)
        coarse, fine = (gauss_hermite_net(teacher, deep; order=o) for o in (24, 32))
        @test loss(coarse, θ) ≈ loss(fine, θ) rtol = 3e-3
        @test loss(gauss_hermite_net(X -> X[1:1, :] .^ 2, Net(layers=((1, "identity", false),), n_features=D)),
                   zeros(D)) ≈ 3
    end
    student = shallow("gelu", 2, 2)
    teacher = TeacherNet(shallow("softplus", 2, 2), 0.5 .* (1:9))
    exact, θ = InfiniteNet(teacher, student), fill(0.3, 9) .* (-1) .^ (1:9)
    @test loss(gauss_hermite_net(teacher, student; order=120), θ) ≈ loss(exact, θ) rtol = 1e-8
    for threshold in (1e-20, 1e-8)                              # E(x₁² + … + x₆²)² = D(D + 2)
        wide = gauss_hermite_net(X -> sum(abs2, X; dims=1),
                                 Net(layers=((1, "identity", false),), n_features=6); order=5,
                                 threshold=threshold)
        @test loss(wide, zeros(6)) ≈ 48 rtol = max(1e-13, 1e3 * threshold)
    end
    @test_throws ArgumentError gauss_hermite_net(X -> X, shallow("tanh", 1, 8))
    @test_throws ArgumentError gauss_hermite_net(X -> X, shallow("tanh", 1, 1); threshold=1)
    @test_throws ArgumentError gauss_hermite(0)
end
