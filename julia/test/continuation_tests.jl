# Branches of functions of one or two variables, whose folds and branch points are known.

using Test, LinearAlgebra
using MLPGF
using MLPGF: Family, Blend, Eigenpairs, continued, continue_eigenpairs, drift_slope, family, place!, decay
import MLPGF: loss, value_and_gradient!, hessian!, hvp!, n_params, drift!, drift_hvp

Base.include(@__MODULE__, joinpath(@__DIR__, "problems.jl"))

"L(x; μ) with gradient g, Hessian H, ∂∇L/∂μ and ∂∇²L/∂μ, all functions of x and μ."
mutable struct Curve <: Family
    P::Int
    g::Any
    H::Any
    drift::Any
    twist::Any
    μ::Float64
end
n_params(c::Curve) = c.P
loss(c::Curve, x) = sum(abs2, c.g(x, c.μ))          # no L has these gradients' norm; only its finiteness counts here
value_and_gradient!(g, c::Curve, x) = (g .= c.g(x, c.μ); loss(c, x))
hessian!(H, c::Curve, x) = (H .= c.H(x, c.μ); H)
hvp!(y, c::Curve, x, v) = (y .= c.H(x, c.μ) * v; y)
drift!(y, c::Curve, x) = (y .= c.drift(x, c.μ); y)
drift_hvp(c::Curve, x, v) = c.twist(x, c.μ) * v

@testset "a closed branch" begin
    # x² + μ² = 1 and y = 0: folds at μ = ±1, where the index changes
    circle = Curve(2, (x, μ) -> [x[1]^2 + μ^2 - 1, x[2]], (x, μ) -> [2x[1] 0; 0 1.0], (x, μ) -> [2μ, 0.0],
                   (x, μ) -> zeros(2, 2), 0.0)
    f = follow(circle, [1.0, 0.0]; bounds=(-2, 2))
    @test length(f.branches) == 1
    b = f.branches[1]
    @test (b.began, b.ended) == ("closed", "closed")
    @test b.x[:, 1] ≈ b.x[:, end]
    @test maximum(abs, b.x[1, :] .^ 2 + b.parameter .^ 2 .- 1) < 1e-14
    @test extrema(b.x[1, :])[1] < -0.99
    @test sort([p.parameter for p in f.points]) ≈ [-1, 1] atol = 1e-12
    @test all(p -> p.kind == "fold" && abs(p.x[1]) < 1e-9 && abs(p.kernel[1]) ≈ 1, f.points)
    @test all(k -> b.index[k] == (b.x[1, k] < 0) || abs(b.x[1, k]) < 1e-9, 1:length(b.parameter))
    # The polygon is shorter than the circle by its corners; the scale of μ is (1 + 1)/4.
    @test b.arclength[end] ≈ 4.8442 rtol = 0.02                  # circumference of an ellipse with half axes 1 and 1/2
end

@testset "branch points" begin
    # x (x - μ): transcritical at 0
    cross = Curve(1, (x, μ) -> [x[1]^2 - μ * x[1]], (x, μ) -> reshape([2x[1] - μ], 1, 1), (x, μ) -> [-x[1]],
                  (x, μ) -> fill(-1.0, 1, 1), -0.7)
    f = follow(cross, [0.0]; bounds=(-1, 1))
    @test [p.kind for p in f.points] == ["branch point"]
    @test abs(f.points[1].parameter) < 1e-12
    @test length(f.branches) == 3
    @test maximum(abs, f.branches[1].x) == 0
    for b in f.branches[2:3]
        @test maximum(abs, b.x[1, :] - b.parameter) < 1e-12
    end
    @test sort([b.parameter[end] for b in f.branches[2:3]]) == [-1, 1]
    # x (x - μ) (x - μ²/2) has its second crossing at μ = 0 too, where three branches meet: no simple branch point;
    # x (μ - x²) (x - 2): a pitchfork at 0, and crossings of x = √μ with x = 2 at μ = 4
    g(x, μ) = x * (μ - x^2) * (x - 2)
    g′(x, μ) = (μ - 3x^2) * (x - 2) + x * (μ - x^2)
    many = Curve(1, (x, μ) -> [g(x[1], μ)], (x, μ) -> reshape([g′(x[1], μ)], 1, 1), (x, μ) -> [x[1] * (x[1] - 2)],
                 (x, μ) -> fill(2x[1] - 2, 1, 1), -1.0)
    f = follow(many, [0.0]; bounds=(-1, 5))
    @test sort([p.parameter for p in f.points]) ≈ [0, 4] atol = 1e-10
    @test length(f.branches) == 5
    for b in f.branches
        @test maximum(abs(g(b.x[1, k], b.parameter[k])) for k in 1:length(b.parameter)) < 1e-12
    end
    @test any(b -> all(abs.(b.x .- 2) .< 1e-12), f.branches)
    # μ x + x³ in both of two variables: both eigenvalues change sign at once
    double = Curve(2, (x, μ) -> μ * x + x .^ 3, (x, μ) -> Matrix(Diagonal(μ .+ 3 .* x .^ 2)), (x, μ) -> copy(x),
                   (x, μ) -> Matrix(1.0I, 2, 2), 1.0)
    f = follow(double, [0.0, 0.0]; bounds=(-1, 1))
    @test [(p.kind, p.multiplicity, p.converged) for p in f.points] == [("branch point", 2, true)]
    @test abs(f.points[1].parameter) < 1e-12
    signs(b) = Tuple(round.(Int, b.x[:, end]))
    @test Set(signs(b) for b in f.branches) == Set((i, j) for i in -1:1, j in -1:1)
    @test length(f.branches) == 9
    # x (x - μ) in both: each is 0 or μ, on either side
    double = Curve(2, (x, μ) -> x .^ 2 .- μ .* x, (x, μ) -> Matrix(Diagonal(2 .* x .- μ)), (x, μ) -> -x,
                   (x, μ) -> Matrix(-1.0I, 2, 2), -0.7)
    f = follow(double, [0.0, 0.0]; bounds=(-1, 1))
    @test [(p.multiplicity, p.converged) for p in f.points] == [(2, true)]
    @test Set((signs(b), b.parameter[end]) for b in f.branches[2:end]) ==
          Set(((i * μ, j * μ), μ) for (i, j) in ((1, 0), (0, 1), (1, 1)), μ in (-1, 1))
    @test length(f.branches) == 7
    # In five variables one or two leave zero: all such branches, and no others, are found from those alone.
    several = Curve(5, (x, μ) -> μ * x + x .^ 3, (x, μ) -> Matrix(Diagonal(μ .+ 3 .* x .^ 2)), (x, μ) -> copy(x),
                    (x, μ) -> Matrix(1.0I, 5, 5), 1.0)
    f = follow(several, zeros(5); bounds=(-0.1, 1), max_branches=100)
    @test f.points[1].multiplicity == 5 && length(f.branches) == 1 + 10 + 40
    @test all(b -> 1 <= count(!iszero, round.(b.x[:, end]; digits=6)) <= 2, f.branches[2:end])
end

derivatives_of(f, x) = collect(MLPGF.derivatives(f, x))

@testset "homotopies of nets" begin
    X, Y = normal(1, 2, 300), normal(2, 2, 300)           # two blocks
    layers(f, g, h) = ((3, f, true), (4, (softplus, g, tanh, h), false), (2, f, true))
    common = (input=X, target=Y, l2=0.1, output_factor=0.7)
    a = Net(; layers=layers(tanh, tanh, sigmoid), common...)
    b = Net(; layers=layers(softplus, sigmoid, gelu), common...)
    other = Net(; layers=layers(tanh, tanh, sigmoid), input=X, target=-Y, weights=abs.(normal(3, 300)))
    θ, v = normal(4, n_params(a)), normal(5, n_params(a))
    for h in (family(a, b), family(a, other), decay(a))
        at(μ, f) = (old = h.μ; y = f(place!(h, μ)); place!(h, old); y)
        slope(f, μ) = (8 * (at(μ + 1e-3, f) - at(μ - 1e-3, f)) - (at(μ + 2e-3, f) - at(μ - 2e-3, f))) / 12e-3
        place!(h, 0.3)
        gradient_at(f) = (g = similar(θ); value_and_gradient!(g, f, θ); g)
        @test drift!(similar(θ), h, θ) ≈ slope(gradient_at, 0.3) rtol = 1e-9
        @test drift_hvp(h, θ, v) ≈ slope(f -> hvp!(similar(θ), f, θ, v), 0.3) rtol = 1e-8
        @test drift_slope(h, θ) ≈ slope(f -> drift!(similar(θ), f, θ), 0.3) atol = 1e-8
        H = hessian!(zeros(length(θ), length(θ)), h, θ)
        @test H * v ≈ hvp!(similar(θ), h, θ, v) rtol = 1e-12
        e = 1e-3
        moved(s) = (g = similar(θ); value_and_gradient!(g, h, θ + s * e * v); g)
        @test H * v ≈ (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / 12e rtol = 1e-7
    end
    for (h, μ, net) in ((family(a, b), 0, a), (family(a, b), 1, b), (family(a, other), 1, other), (decay(a), 0.1, a))
        @test loss(place!(h, μ), θ) ≈ loss(net, θ) rtol = 1e-14
    end
    @test_throws ArgumentError family(a, Net(; layers=layers(softplus, tanh, sigmoid), input=X, target=-Y))
    @test derivatives_of(Blend(MLPGF.tanh_, MLPGF.sigmoid, Ref(0.25)), 0.4) ≈
          0.75 .* derivatives_of(MLPGF.tanh_, 0.4) .+ 0.25 .* derivatives_of(MLPGF.sigmoid, 0.4)
end

@testset "eigenpairs" begin
    # Two levels that avoid each other by 2δ, two that cross, and one that is double.
    rotation = Matrix(qr(normal(7, 6, 6)).Q)
    function H(s, δ)
        A = Matrix(Diagonal([s, -s, 3 + s, 3 - s, 6.0, 6.0]))
        A[1, 2] = A[2, 1] = δ
        B = rotation * A * rotation'
        return (B + B') / 2
    end
    for δ in (0.2, 0.02)
        pairs(s) = Eigenpairs(H(s, δ))
        E = pairs(-1.0)
        for s in range(-1, 1; length=12)[2:end]
            E = continue_eigenpairs(pairs, E, s - 2 / 11, s, 1e-12)
            @test H(s, δ) * E.V ≈ E.V * Diagonal(E.λ) atol = 1e-12
            @test E.V' * E.V ≈ I
        end
        @test E.λ ≈ [-sqrt(1 + δ^2), sqrt(1 + δ^2), 4, 2, 6, 6]       # 2 and 4 have crossed, the first two have not
    end
    # Signs and the basis of a double eigenvalue stay what they are.
    first, second = Eigenpairs(H(0.5, 0.1)), Eigenpairs(H(0.5, 0.1))
    turned = Eigenpairs(second.λ, second.V * cat(Diagonal([-1, 1, -1, 1]), [0.6 0.8; -0.8 0.6]; dims=(1, 2)))
    same, overlap = continued(first, turned, 1e-10)
    @test same.V ≈ first.V
    @test overlap ≈ 1
end
