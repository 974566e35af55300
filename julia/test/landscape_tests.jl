# Fixed points of every kind, built so that their kind is known; and the tools by their invariants.

using Test, LinearAlgebra
using MLPGF
using MLPGF: point, coordinates, align, assign, balance!, with_number_type, AbstractNet, watch!, valleys
import MLPGF: loss, value_and_gradient!, hessian!, n_params

Base.include(@__MODULE__, joinpath(@__DIR__, "problems.jl"))

"A function of a few variables with given derivatives."
struct Given{F,G,K} <: AbstractNet{Float64}
    P::Int
    f::F
    g::G
    h::K
end
n_params(net::Given) = net.P
loss(net::Given, x) = Float64(net.f(x...))
value_and_gradient!(g, net::Given, x) = (g .= net.g(x...); loss(net, x))
hessian!(H, net::Given, x) = (H .= net.h(x...); H)

# With seeds 4, 6 and 10 the noise is fitted best at infinity: a unit becomes a step, or two the derivative of one.
"A minimum with positive loss: a teacher's target and noise."
function noisy_minimum(f=tanh; k=2, D=2, N=300, bias=true, T=Float64, scale=1, seed=3)
    X = T.(normal(seed, D, N))
    layers = ((k, f, bias), (1, identity, bias))
    blank = Net(layers=layers, input=X, target=zeros(T, 1, N))
    ϑ = T.(normal(seed + 1, n_params(blank)))
    ϑ[MLPGF.last_layer(blank)] .*= T(scale)
    y = (predict(blank, ϑ) .+ T(0.1scale) .* T.(normal(seed + 2, 1, N)))
    net = Net(layers=layers, input=X, target=y)
    return net, minimize(net, ϑ).x
end
explained(c) = sum(Int[e[4] for e in c.explanations])
reasons(c) = unique(e[1] for e in c.explanations)

@testset "functions of few variables" begin
    bowl = Given(2, (x, y) -> x^2 + 5y^2, (x, y) -> [2x, 10y], (x, y) -> [2.0 0; 0 10])
    @test classify(bowl, [0.0, 0.0]).kind == "minimum"
    @test classify(bowl, [1e-9, 0.0]).kind == "minimum"
    @test classify(bowl, [1e-3, 0.0]).kind == "not a fixed point"        # the Hessian is the same everywhere
    pass = Given(2, (x, y) -> x^2 - y^2, (x, y) -> [2x, -2y], (x, y) -> [2.0 0; 0 -2])
    c = classify(pass, [0.0, 0.0])
    @test (c.kind, c.index, c.nullity) == ("saddle", 1, 0)
    @test abs(c.direction[2]) ≈ 1
    trough = Given(2, (x, y) -> x^2 + y^4, (x, y) -> [2x, 4y^3], (x, y) -> [2.0 0; 0 12y^2])
    c = classify(trough, [0.0, 0.0])
    @test (c.kind, c.index, c.nullity, c.unexplained) == ("degenerate", 0, 1, 1)
    plain = Given(2, (x, y) -> 0.0, (x, y) -> [0.0, 0.0], (x, y) -> zeros(2, 2))
    @test classify(plain, [1.0, 2.0]).kind == "degenerate"
    slope = Given(2, (x, y) -> exp(-x) + y^2, (x, y) -> [-exp(-x), 2y], (x, y) -> [exp(-x) 0; 0 2.0])
    @test classify(slope, [20.0, 0.0]).kind == "escaping"
    @test classify(slope, [20.0, 0.0]).direction ≈ [1, 0]
    tilted = Given(2, (x, y) -> -1e-6x + y^2, (x, y) -> [-1e-6, 2y], (x, y) -> [0.0 0; 0 2.0])
    @test classify(tilted, [20.0, 0.0]).kind == "escaping"
    bounded = Given(2, (x, y) -> 1 + cos(x) + y^2, (x, y) -> [-sin(x), 2y], (x, y) -> [-cos(x) 0; 0 2.0])
    @test classify(bounded, [0.1, 0.0]).kind == "not a fixed point"
    @test_throws DimensionMismatch classify(bowl, [1.0])
end

@testset "minima, k = $k, N = $N, bias = $bias, $T, target × $scale" for (k, N, bias, T, scale) in
        ((2, 300, true, Float64, 1), (1, 50, true, Float64, 1), (2, 300, false, Float64, 1), (2, 300, true, Float32, 1),
         (2, 300, true, Float64, 1e3), (2, 300, true, Float64, 1e-3), (2, 20_000, true, Float64, 1))
    net, x = noisy_minimum(; k=k, N=N, bias=bias, T=T, scale=scale)
    c = classify(net, x)
    @test (c.kind, c.index, c.nullity) == ("minimum", 0, 0)
    @test c.eigenvalues ≈ eigvals(Symmetric(hessian(net, x)))
    @test c.tolerance < c.eigenvalues[1] / 10
    @test classify(net, x .* T(1.01)).kind == "not a fixed point"
    @test classify(net, random_params(1, net)).kind == "not a fixed point"
end

@testset "a zero of the loss, deep" begin
    X = normal(5, 3, 200)
    layers = ((3, tanh, true), (2, sigmoid, true), (2, identity, true))
    blank = Net(layers=layers, input=X, target=zeros(2, 200))
    ϑ = normal(6, n_params(blank))
    net = Net(layers=layers, input=X, target=predict(blank, ϑ))
    c = classify(net, ϑ)
    @test (c.kind, c.loss) == ("minimum", 0)
end

@testset "split neurons" begin
    net, x = noisy_minimum()
    for (γ, kind, index) in ((0.3, "saddle", 1), (-0.5, "saddle", 2), (1.7, "saddle", 2))
        wide, y = split_neuron(net, x, 1, γ)
        @test loss(wide, y) ≈ loss(net, x) rtol = 1e-14
        c = classify(wide, y)
        @test (c.kind, c.index, c.nullity, c.unexplained) == (kind, index, 1, 0)
        @test c.explanations == [("duplicate units", 1, [1, 3], 1)]
        z = escape_saddle(wide, y)
        @test loss(wide, z) < loss(wide, y)
        @test loss(wide, escape_saddle(wide, y; sign=-1)) < loss(wide, y)
        v = (z - y) / norm(z - y)
        @test dot(v, hessian(wide, y) * v) ≈ c.eigenvalues[1] rtol = 1e-6
    end
    # γ = 1: the copy is silent. Its incoming weights are free to first order, and a corner of the line of saddles.
    wide, y = split_neuron(net, x, 1, 1.0)
    c = classify(wide, y)
    @test c.explanations[1] == ("silent unit", 1, [3], 3)
    # With l2 the halves attract each other, and the line is none.
    held = Net(layers=((3, tanh, true), (1, identity, true)), input=permutedims(net.blocks[1].X[:, 1:2]), l2=0.01,
               target=normal(1, 1, 256))
    c = classify(held, minimize(held, split_neuron(net, x, 1, 0.5)[2]).x)
    @test c.nullity == 0
end

@testset "relu: scales and dead units" begin
    net, x = noisy_minimum(relu; k=2, seed=1)
    c = classify(net, x)
    @test (c.kind, c.nullity, c.unexplained) == ("degenerate", 2, 0)
    @test reasons(c) == ["scale of a unit"]
    grown, y = grow_net(net, x; incoming=[0.0, 0.0, -1.0])       # below zero for every input
    c = classify(grown, y)
    @test (c.kind, c.nullity, c.unexplained) == ("degenerate", 6, 0)
    @test ("dead unit", 1, [3], 4) in c.explanations
    y[MLPGF.outgoing(grown.layers[2], 3)] .= 2                   # whatever comes out of it
    c = classify(grown, y)
    @test (c.kind, c.nullity, c.unexplained) == ("degenerate", 6, 0)
    held = Net(layers=((2, relu, true), (1, identity, true)), input=permutedims(net.blocks[1].X[:, 1:2]),
               target=permutedims(net.blocks[1].Y), l2=1e-2)
    @test classify(held, minimize(held, x).x).nullity == 0       # l2 fixes the scale
end

@testset "other null directions" begin
    X = normal(1, 2, 100)
    y = normal(2, 1, 100)
    # two linear units are one: A in W → A W, V → V A⁻¹ has four dimensions, and the bias trades with the output's
    net = Net(layers=((2, identity, true), (1, identity, true)), input=X, target=y)
    c = classify(net, minimize(net, random_params(1, net)).x)
    @test c.kind == "degenerate" && c.unexplained == 0
    @test c.nullity == n_params(net) - 3
    # an input that is twice another
    net = Net(layers=((1, tanh, true), (1, identity, true)), input=[X[1:1, :]; 2X[1:1, :]],
              target=tanh.(X[1:1, :]) .+ 0.1y)
    c = classify(net, minimize(net, [0.4, 0.3, 0.0, 1.0, 0.0]).x)
    @test c.kind == "degenerate" && c.explanations == [("dependent inputs", 0, [1, 2], 1)]
    # softmax
    labels = [MLPGF.uniform!(MLPGF.Xoshiro256(i)) < 0.7 ? (X[1, i] > 0 ? 1 : 2) : 3 for i in 1:100]
    net = Net(layers=((3, softmax, true),), input=X, target=labels, loss="nll")
    c = classify(net, minimize(net, zeros(9)).x)
    @test c.kind == "degenerate" && c.explanations == [("softmax shift", 1, [1, 2, 3], 3)]
    # more parameters than equations
    net = Net(layers=((4, tanh, true), (1, identity, true)), input=X[:, 1:5], target=y[:, 1:5])
    r = minimize(net, random_params(3, net))
    c = classify(net, r.x)
    @test r.loss < 1e-28 && c.kind == "degenerate" && c.nullity == 17 - 5 && c.unexplained == 0
end

@testset "to infinity" begin
    X = normal(6, 2, 100)
    labels = [x > 0 ? 1 : 2 for x in X[1, :]]
    for layers in (((2, softmax, true),), ((3, tanh, true), (2, softmax, true)),
                   ((3, relu, false), (2, softmax, false)))
        net = Net(layers=layers, input=X, target=labels, loss="nll")
        r = flow(net, random_params(2, net); maxT=1e5)
        c = classify(net, r.x)
        @test c.kind == "escaping"
        @test norm(c.direction) ≈ 1
        @test loss(net, r.x + 10 * norm(r.x) * c.direction) < r.loss / 2
    end
    # Two units that become the derivative of one: outgoing weights diverge, incoming ones merge.
    x = reshape(collect(range(-2, 2, length=60)), 1, :)
    net = Net(layers=((2, tanh, false), (1, identity, false)), input=x, target=x ./ cosh.(x) .^ 2)
    r = flow(net, [0.9, 1.2, -1.0, 1.0]; maxT=1e6)
    @test classify(net, r.x).kind == "escaping"
    # labels that no net separates have a finite minimum
    labels[1:2:20] .= 3 .- labels[1:2:20]
    net = Net(layers=((2, softmax, true),), input=X, target=labels, loss="nll")
    @test classify(net, minimize(net, zeros(6)).x).kind == "degenerate"
    @test classify(net, zeros(6)).kind == "not a fixed point"
end

@testset "grow and shrink, layer $layer" for layer in 1:2
    X = normal(1, 3, 40)
    net = Net(layers=((2, (tanh, relu), true), (3, sigmoid, false), (2, identity, true)), input=X,
              target=normal(2, 2, 40), merge=(layer, 1, 2, 0.3))
    x = normal(3, n_params(net))
    n = net.layers[layer].fan_in + net.layers[layer].bias
    wide, y = grow_net(net, x; layer=layer, incoming=normal(4, n))
    @test loss(wide, y) ≈ loss(net, x) rtol = 1e-14
    @test n_params(wide) == length(y) == n_params(net) + n + net.layers[layer+1].width
    k = wide.layers[layer].width
    narrow, z = shrink_net(wide, y, k; layer=layer)
    @test z == x && n_params(narrow) == n_params(net)
    @test loss(narrow, z) == loss(net, x)
    for i in 1:k-1
        split, s = split_neuron(net, x, i, 0.3; layer=layer)
        @test data_loss(split, s) ≈ data_loss(net, x) rtol = 1e-14
        @test loss(split, s) ≈ loss(net, x) rtol = 1e-14
        back, b = shrink_net(split, s, k; layer=layer, into=i)
        @test b ≈ x rtol = 1e-15
    end
    @test_throws ArgumentError grow_net(net, x; layer=3)
    @test_throws ArgumentError shrink_net(net, x, 9; layer=layer)
    @test_throws ArgumentError shrink_net(net, x, 1; layer=layer, into=1)
end

@testset "planes" begin
    net, x = noisy_minimum()
    p, q = x .+ normal(1, length(x)), x .- normal(2, length(x))
    plane = LinearSubspace(x, p - x, q - x)
    @test coordinates(plane, p) ≈ [1, 0] atol = 1e-12
    @test coordinates(plane, q) ≈ [0, 1] atol = 1e-12
    @test point(plane, (0, 1)) ≈ q
    L = loss_grid(net, plane, 0:1, 0:1)
    @test L[1, 1] == loss(net, x) && L[2, 1] ≈ loss(net, p) && L[1, 2] ≈ loss(net, q)
    # the minimum lies on the plane, at (0, 0)
    m = subspace_minloss(net, plane, (0.0, 0.0), x .+ 0.01)
    @test m.x ≈ x atol = 1e-6
    m = subspace_minloss(net, plane, (0.3, -0.2))
    @test coordinates(plane, m.x) ≈ [0.3, -0.2] atol = 1e-12
    @test m.loss == loss(net, m.x) < loss(net, point(plane, (0.3, -0.2)))
    @test norm(plane.complement' * gradient(net, m.x)) < 1e-8
    grid = subspace_grid(net, plane, -0.2:0.2:0.2, [0.0]; start=x, maxiterations=200)
    @test grid.finished && size(grid.x) == (length(x), 3, 1)
    @test grid.loss[2, 1] ≈ loss(net, x) && argmin(grid.loss) == CartesianIndex(2, 1)
    @test_throws ArgumentError LinearSubspace(x, p - x, 2 * (p - x))
    # the restricted Hessian is the derivative of the restricted gradient
    r = MLPGF.Restricted(net, plane, [0.1, 0.2])
    z, v = normal(3, n_params(r)), normal(4, n_params(r))
    @test hvp(r, z, v) ≈ hessian(r, z) * v
    h = 1e-6
    @test (gradient(r, z + h * v) - gradient(r, z - h * v)) / 2h ≈ hessian(r, z) * v rtol = 1e-6
end

@testset "assignment and similarity" begin
    permutations(v) = isempty(v) ? [Int[]] : [[x; p] for x in v for p in permutations(filter(!=(x), v))]
    for seed in 1:20
        cost = normal(seed, 4, 6)
        best = minimum(sum(cost[i, p[i]] for i in 1:4) for p in permutations(collect(1:6)))
        columns = assign(cost)
        @test allunique(columns) && sum(cost[i, columns[i]] for i in 1:4) ≈ best
    end
    @test cosine_similarity([1.0 0; 3 4], [0.0 2; 1 0; 0 0]) ≈ [0 1 0; 0.8 0.6 0]
end

@testset "symmetries, $f" for f in (tanh, softplus, relu, square)
    X = normal(1, 3, 50)
    net = Net(layers=((4, f, true), (3, f, true), (2, identity, true)), input=X, target=normal(2, 2, 50))
    x = normal(3, n_params(net))
    y = copy(x)
    for l in 1:2, j in 1:net.layers[l].width
        into, out = MLPGF.incoming(net.layers[l], j), MLPGF.outgoing(net.layers[l+1], j)
        f === relu && (y[into] .*= 1 + j; y[out] ./= 1 + j)
        isodd(j) && MLPGF.parity(activation(f)) != 0 && (y[into] .*= -1; y[out] .*= MLPGF.parity(activation(f)))
    end
    y = y[MLPGF.rewire(net.layers, 1, [3, 1, 4, 2])[2]]
    y = y[MLPGF.rewire(net.layers, 2, [2, 3, 1])[2]]
    @test loss(net, y) ≈ loss(net, x) rtol = 1e-12
    @test norm(y - x) > 1
    @test align(net.layers, y, x) ≈ balance!(copy(x), net.layers) rtol = 1e-10
    other = x .+ normal(4, length(x))
    @test loss(net, align(net.layers, other, x)) ≈ loss(net, other) rtol = 1e-10
    labels, representatives = distinct_minima(net, [x other y], [1.0, 0.5, 1.0])
    @test labels == [2, 1, 2] && representatives[1] == 2
    m = match_neurons(net, y, net, x)
    f in (tanh, square) ? (@test sort(abs.(m.unit)) == 1:4 && all(≈(1), m.similarity) && -1 in m.sign) :
                          (@test m.unit == [2, 4, 1, 3] && all(==(1), m.sign))
end

@testset "saddles on the way" begin
    # L = (1 − ab)²: the flow from (δ, δ) leaves the saddle at 0 at t ≈ log(1/δ)/2.
    net = Net(layers=((1, identity, false), (1, identity, false)), input=[1.0], target=[1.0])
    δ = 1e-5
    r = flow(net, [δ, δ]; maxT=40, save_everystep=true, abstol=1e-9, reltol=1e-9)
    s = saddle_passages(net, r.trajectory)
    @test s.index == [1]
    @test s.loss[1] ≈ 1 atol = 1e-4
    @test s.lowest[1] ≈ -2 rtol = 1e-3
    # two of them: singular values 2 and 1/2 of a linear map are learnt one after the other
    X = [1.0 0 ; 0 1]
    net = Net(layers=((2, identity, false), (2, identity, false)), input=X, target=[4.0 0; 0 0.5])
    x = 1e-4 * normal(1, 8)
    r = flow(net, x; maxT=1e4, save_everystep=true)
    s = saddle_passages(net, r.trajectory)
    @test length(s) == 2 && s.t[1] < s.t[2]
    @test s.loss[2] ≈ 0.5^2 / 2 rtol = 1e-3
    @test s.index[1] > s.index[2] >= 1
    Λ = spectrum_along(net, r.trajectory.x[:, [1, end]])
    @test Λ[:, 2] ≈ eigvals(Symmetric(hessian(net, r.x)))
    @test spectrum_along(net, r.trajectory.x[:, [1, end]]; k=1) ≈ Λ[[1, 8], :]
    @test valleys([3.0, 1, 5, 4, 1, 1.5, 1.2, 9], 3) == [2, 5]
    @test isempty(valleys([3.0, 2, 1], 3)) && valleys([1.0, 2, 4], 3) == [1]
    bowl, x = noisy_minimum()
    @test length(saddle_passages(bowl, flow(bowl, x .* 1.1; maxT=100).trajectory)) == 0
    @test_throws ArgumentError escape_saddle(bowl, x)
end

@testset "more digits" begin
    net, x = noisy_minimum()
    r = polish(net, x; digits=40)
    @test r.converged && r.gnorm < 1e-38 && norm(r.x - x) < 1e-10
    big = with_number_type(BigFloat, net)
    @test loss(big, r.x) ≈ r.loss rtol = 1e-60
    @test setprecision(() -> norm(gradient(big, r.x)), BigFloat, 600) < 1e-38
    wide, y = split_neuron(net, x, 1, 0.3)
    s = polish(wide, y; digits=40)
    @test s.converged
    @test s.loss ≈ r.loss rtol = 1e-35             # on the line of saddles, not off it
    single, z = noisy_minimum(T=Float32)
    @test polish(single, z; digits=20).converged
    far = polish(net, random_params(1, net); digits=20, maxiterations=3)
    @test !far.converged
    @test_throws ArgumentError polish(net, x; digits=0)
    # Huge weights: LAPACK's quickest eigensolver did not return from some, and in Float64 the Hessian overflows.
    reasons = Set{Stop.Reason}()
    for i in 1:3:length(x), size in (1e20, 1e100, 1e200, 1e300)
        y = [j == i ? size : x[j] for j in eachindex(x)]
        push!(reasons, polish(net, y; digits=20, maxiterations=3).stopped_by)
        all(isfinite, hessian(net, y)) && @test classify(net, y).kind != "minimum"
    end
    @test Stop.diverged in reasons
end

@testset "separable classes: the infimum lies at infinity, however small the gradient is" begin
    X = [-1.0 -2 1 2; 0.3 -0.2 0.1 0.4]
    for T in (Float64, Float32), layers in (((2, "softmax", true),), ((3, tanh, true), (2, "softmax", true)))
        net = Net(layers=layers, input=T.(X), target=[1, 1, 2, 2], loss="nll", T=T)
        res = minimize(net, random_params(0, net))
        c = classify(net, res.x)
        @test c.kind == "escaping"
        along = net.layers[end].offset+1:n_params(net)
        @test all(iszero, c.direction[1:net.layers[end].offset]) && c.direction[along] ≈ normalize(res.x[along])
        early = flow(net, random_params(0, net); maxT=100.0)
        @test classify(net, early.x).kind == "escaping"
        held = Net(layers=layers, input=T.(X), target=[1, 1, 2, 2], loss="nll", l2=1e-2, T=T)
        @test classify(held, minimize(held, random_params(0, held)).x).kind != "escaping"
    end
    overlapping = Net(layers=((2, "softmax", true),), input=[-1.0 1 -0.5 2], target=[1, 1, 2, 2], loss="nll")
    @test classify(overlapping, minimize(overlapping, random_params(0, overlapping)).x).kind == "degenerate"
end
