using MLPGF, LinearAlgebra, Random, Test
using MLPGF: Derivative, Inside, Sharp, Tail, limit_net, to_limit, from_limit, without_chains, channels,
    channel_coefficients,
    minimize_at_infinity, with_number_type, divided_differences
Base.include(@__MODULE__, joinpath(@__DIR__, "draws.jl"))

Base.include(@__MODULE__, joinpath(@__DIR__, "finite_differences.jl"))

const BEND = activation(x -> x * exp(-x^2))
const SMOOTH = [activation.(["tanh", "softplus", "sigmoid", "sigmoid2", "normal_cdf", "gelu", "silu", "g", "cube",
                             "exp"])
                BEND]

function nets(layers, D, O, N; options...)
    rng = MersenneTwister(3)
    X, Y = randn(rng, D, N), randn(rng, O, N)
    net(T) = Net(; layers=layers, input=X, target=Y, T=T, options...)
    return net(Float64), net(BigFloat)
end

# The formulas in BigFloat against differences, which know none of them, then those in Float64 against these.
function check_derivatives(layers, D, O, N; tolerance=5e-15, options...)
    net, exact = nets(layers, D, O, N; options...)
    θ, v = normals(4, n_params(net)), normals(5, n_params(net))
    g, H = finite_differences(exact, big.(θ))
    @test relative(gradient(exact, big.(θ)), g) < 1e-40
    @test relative(hessian(exact, big.(θ)), H) < 1e-40
    @test loss(net, θ) ≈ loss(exact, big.(θ)) rtol = 1e-14
    @test relative(gradient(net, θ), g) < tolerance
    @test relative(hessian(net, θ), H) < tolerance
    @test relative(hvp(net, θ, v), H * v) < tolerance
    @test issymmetric(hessian(net, θ))
    J = reduce(hcat, ((vec(MLPGF.predict(exact, big.(θ) + h) - MLPGF.predict(exact, big.(θ) - h)) for
                       h in (big(1e-25) * (1:n_params(net) .== i) for i in 1:n_params(net))))) / big(2e-25)
    isempty(options) && last(layers)[2] == "identity" &&
        @test relative(reshape(MLPGF.jacobian(net, θ), :, n_params(net)), J) < tolerance
end

@testset "derivatives of chains" begin
    t, s = activation("tanh"), activation("softplus")
    @testset "$f" for f in SMOOTH
        check_derivatives(((3, (f, f, Derivative(1)), true), (1, "identity", true)), 2, 1, 9)
    end
    @testset "$name" for (name, layers, D, O, options) in (
            ("three units, two outputs", ((4, (t, t, Derivative(2), Derivative(2, 2)), true), (2, "identity", true)), 2,
             2, ()),
            ("a distance of 1e-3", ((3, (t, t, Derivative(1, 1, 1e-3)), true), (1, "identity", true)), 2, 1, ()),
            ("a distance of 1", ((3, (s, s, Derivative(1, 1, 1.0)), true), (2, "identity", true)), 2, 2, ()),
            ("two pairs in a deep net", ((3, "tanh", true), (5, (Derivative(2), t, t, s, Derivative(4)), true),
                                         (2, "sigmoid", true), (2, "identity", true)), 2, 2, ()),
            ("chains in two layers, no biases",
             ((3, (t, Derivative(1), Derivative(1, 2)), false), (4, (s, Derivative(1), t, Derivative(3)), false),
              (2, "identity", false)), 2, 2, ()),
            ("two chains, one output", ((5, (Derivative(3), s, t, s, Derivative(4)), true), (1, "identity", true)), 3,
             1, ()),
            ("three units, one output, no biases",
             ((4, (Derivative(3, 2), Derivative(3), t, s), false), (1, "identity", false)), 2, 1, ()),
            ("classes", ((3, (t, t, Derivative(1)), true), (3, "softmax", true)), 2, 3, (loss="nll",)),
            ("tails",
             ((4, (Tail(t), Tail(t, 0.3), Tail(s, 0.3), Tail(activation("g"), 0.2)), true), (1, "identity", true)),
             2, 1, ()),
            ("sharp units",
             ((5, (Sharp(t, 0.3), Sharp(s, 0.3), Inside(t), Sharp(s), Sharp(t)), true), (1, "identity", true)),
             2, 1, ()),
            ("two tails that merge", ((3, (Tail(t), Tail(s), Derivative(1)), true), (2, "identity", true)), 2, 2, ()))
        options == () ? check_derivatives(layers, D, O, 9) :
            (net = Net(; layers=layers, input=normals(1, 2, 9), target=repeat(1:3, 3), options...);
             exact = with_number_type(BigFloat, net); θ = normals(4, n_params(net));
             (g, H) = finite_differences(exact, big.(θ));
             @test(relative(gradient(net, θ), g) < 5e-15 && relative(hessian(net, θ), H) < 5e-15))
    end
    @testset "Float32, several blocks, threads" begin
        layers = ((3, (t, t, Derivative(1)), true), (1, "identity", true))
        net, exact = nets(layers, 2, 1, 600)
        θ = normals(4, n_params(net))
        @test relative(gradient(net, θ), gradient(exact, big.(θ))) < 1e-14
        small = with_number_type(Float32, net)
        @test relative(gradient(small, Float32.(θ)), gradient(net, θ)) < 1e-5
        @test relative(hessian(small, Float32.(θ)), hessian(net, θ)) < 1e-5
        G = MLPGF.gauss_newton(net, θ)
        J = reshape(MLPGF.jacobian(net, θ), :, length(θ))
        @test relative(G, 2 * J' * J / 600) < 1e-14
        @test relative(MLPGF.hessian_blocks(net, θ)[1], hessian(net, θ)[1:9, 1:9]) < 1e-14
    end
    @testset "no allocation" begin
        net, _ = nets(((4, (t, t, Derivative(2), Derivative(2, 2)), true), (3, (s, Derivative(1, 1, 1e-3), s), true),
                       (1, "identity", true)), 2, 1, 300)
        θ = normals(4, n_params(net))
        g, H, v = similar(θ), zeros(length(θ), length(θ)), copy(θ)
        for f in (() -> gradient!(g, net, θ), () -> hvp!(g, net, θ, v), () -> hessian!(H, net, θ))
            f()
            @test (@allocated f()) == 0
        end
    end
end

@testset "divided differences" begin
    # A difference of rounded numbers loses what u has in zeros: the reference has 400 bits.
    for f in SMOOTH[1:10], h in (-3.0, -0.4, 0.0, 1.7), u in (1e-12, 1e-8, 1e-4, 0.01, 0.1, 0.12499, 0.125, 1.0, 3.0)
        found = divided_differences(f, h, u)
        exact = setprecision(() -> divided_differences(f, big(h), big(u)), BigFloat, 400)
        sizes(x) = abs.(MLPGF.derivatives(f, x))
        scale = setprecision(() -> maximum(sizes(big(h) + u) .+ sizes(big(h) - u)), BigFloat, 400)
        for k in 1:3
            @test abs(found[k] - exact[k]) <= 8 * eps() * max(scale, abs(exact[k]))
        end
    end
end

function wavy(; width=4, N=100, f="tanh")
    X = normals(4, 2, N)          # on which two pairs of units merge, from where a test below begins
    return Net(layers=((width, f, true), (1, "identity", true)), input=X, target=cos.(2 .* X[1, :]) .* X[2, :])
end

@testset "charts" begin
    net = wavy()
    q = normals(7, n_params(net))
    @testset "pair at $ε" for ε in (1.0, 0.1, 1e-3, 1e-8, 1e-15)
        chart = limit_net(net, [[1, 3], [2]]; ε=ε)
        exact = with_number_type(BigFloat, net)
        reference = setprecision(() -> loss(exact, from_limit(chart.layers, big.(q), [ε, ε])), BigFloat, 200)
        @test loss(chart, q) ≈ reference rtol = 1e-13
        ε < 1e-3 && continue
        θ = from_limit(chart.layers, q, [ε, ε])
        @test loss(net, θ) ≈ loss(chart, q) rtol = 1e-9
        back, distances = to_limit(chart.layers, θ)
        @test back ≈ q rtol = 1e-9
        @test distances == [ε, ε]
    end
    @testset "units of adjacent layers" begin
        deep = Net(layers=((4, tanh, true), (4, tanh, true), (2, identity, true)), input=normals(8, 2, 9),
                   target=normals(9, 2, 9))
        chart = limit_net(limit_net(deep, [[1, 3], [2]]; ε=0.1), [[4, 1], [3]]; layer=2, ε=0.2)
        x = normals(10, n_params(chart))
        θ = from_limit(chart.layers, x, [0.1, 0.1, 0.2, 0.2])
        @test loss(deep, θ) ≈ loss(chart, x) rtol = 1e-12
        @test to_limit(chart.layers, θ)[1] ≈ x rtol = 1e-12
    end
    @testset "the ordinary net's flow at 1/ε = 1e8" begin
        ε = 1e-8
        chart, exact = limit_net(net, [[1, 3]]; ε=ε), with_number_type(BigFloat, net)
        velocity = setprecision(BigFloat, 400) do
            v = -gradient(exact, from_limit(chart.layers, big.(q), [ε]))
            for (i, j) in ((1, 5), (2, 6), (9, 11))              # weights and biases of units 1 and 3
                v[i], v[j] = (v[i] + v[j]) / 2, (v[i] - v[j]) / 2big(ε)
            end
            v[13], v[15] = v[13] + v[15], (v[13] - v[15]) * big(ε)                # outgoing weights
            v
        end
        found = -MLPGF.original_metric(chart) .* gradient(chart, q)
        @test all(abs(found[i] - velocity[i]) <= 1e-12 * abs(velocity[i]) + 1e-300 for i in eachindex(q))
    end
    @testset "limits of maps, $groups" for groups in ([[1, 3]], [[4, 2]], [[1, 2, 4]], [[3]], [[1, 2], [3]])
        limit = limit_net(net, groups)
        @test n_params(limit) == n_params(net)
        @test without_chains(limit).layers[1].activation == net.layers[1].activation
        n = MLPGF.count_chains(limit.layers)
        exact = with_number_type(BigFloat, net)
        base = loss(with_number_type(BigFloat, limit), big.(q))
        losses = [Float64(loss(exact, from_limit(limit.layers, big.(q), fill(big(ε), n))) - base)
                  for ε in (1e-3, 1e-4)]
        @test losses[1] / losses[2] ≈ 100 rtol = 0.02           # of second order in ε
        @test losses[2] / 1e-8 ≈ sum(channel_coefficients(limit, q)) rtol = 1e-5
        θ = from_limit(limit.layers, q, fill(1e-2, n))
        back, ε = to_limit(limit.layers, θ)
        @test predict(limit, back) ≈ predict(limit, q) rtol = (length(groups[1]) == 3 ? 1e-3 : 1e-6)
    end
    @testset "two tails that merge, $f" for f in ("tanh", "sigmoid", "softplus", "g")
        net = wavy(; f=f)
        limit, exact = limit_net(limit_net(net, [[1], [3]]), [[1, 3]]), with_number_type(BigFloat, net)
        @test without_chains(limit).layers[1].activation == net.layers[1].activation
        setprecision(BigFloat, 400) do
            base, ε = loss(with_number_type(BigFloat, limit), big.(q)), 1e-8
            @test Float64((loss(exact, from_limit(limit.layers, big.(q), [ε])) - base) / big(ε)^2) ≈
                  channel_coefficients(limit, q)[1] rtol = 1e-8
        end
        back, ε = to_limit(limit.layers, from_limit(limit.layers, q, [1e-2]))
        @test predict(limit, back) ≈ predict(limit, q) rtol = 1e-2
        @test ε ≈ [1e-2 * exp(q[9] / 2)] rtol = 1e-2
        normal = MLPGF.normalise!(copy(q), limit.layers)
        @test predict(limit, normal) ≈ predict(limit, q) rtol = 1e-12
        @test norm(normal[[5, 6, 11]]) ≈ 1 && normal[11] == 0
        found, _ = MLPGF.explain(limit, q, Matrix{Float64}(I, 17, 17))
        for (e, _) in found, d in e.directions
            e.label in ("scale of a unit", "offset of a derivative") || continue
            @test abs(dot(gradient(limit, q), d)) <= 1e-13 * norm(gradient(limit, q)) * norm(d)
        end
        @test count(e -> e[1].label in ("scale of a unit", "offset of a derivative"), found) == 2
        normal[[1, 2]] *= 0.2
        θ = from_limit(limit.layers, normal, [1e-2])
        @test [(c.units, c.kind) for c in channels(net, θ)] == [([1, 3], "tails")]
    end
    @testset "coefficients one by one" begin
        limit, exact = limit_net(net, [[1, 3], [2, 4]]), with_number_type(BigFloat, net)
        h = channel_coefficients(limit, q)
        base = loss(with_number_type(BigFloat, limit), big.(q))
        for (i, ε) in ((1, [1e-6, 1e-12]), (2, [1e-12, 1e-6]))
            @test Float64((loss(exact, from_limit(limit.layers, big.(q), ε)) - base) * 1e12) ≈ h[i] rtol = 1e-9
        end
    end
end

@testset "channels" begin
    net = wavy()
    limit = limit_net(net, [[1, 3]])
    θ = from_limit(limit.layers, normals(7, n_params(net)), [1e-2])
    found = channels(net, θ)
    @test [c.units for c in found] == [[1, 3]]
    @test found[1].eps > 0
    θ[[5, 6, 11]] *= -1; θ[15] *= -1                                       # unit 3, odd
    @test [c.units for c in channels(net, θ)] == [[1, 3]]
    triple = limit_net(net, [[1, 2, 4]])
    θ = from_limit(triple.layers, normals(7, n_params(net)), [1e-2])
    @test sort(channels(net, θ)[1].units) == [1, 2, 4]
    @test isempty(channels(net, normals(1, n_params(net))))
end

@testset "minima at infinity" begin
    net = wavy()
    m = minimize_at_infinity(net, random_params(2, net); maxiterations=2000)
    @test m.kind == "minimum at infinity" && m.gnorm < 1e-12 && m.iterations < 1000
    @test length(m.channels) == 2 && all(>(0), m.coefficients)
    @test loss(m.limit, m.q) == m.loss < loss(net, m.x)
    c = classify(m.limit, m.q)
    @test c.unexplained == 0 && c.index == 0 && [e[1] for e in c.explanations] == ["scale of a unit", "scale of a unit"]
    X = normals(0, 2, 50)
    simple = Net(layers=((1, "tanh", true), (1, "identity", true)), input=X, target=tanh.(X[1, :]) .+ X[2, :] ./ 10)
    finite = minimize_at_infinity(simple, random_params(1, simple); maxiterations=2000)
    @test finite.kind == "minimum" && isempty(finite.channels)
    @test_throws ArgumentError minimize_at_infinity(m.limit, m.q)
end

@testset "bad input" begin
    net = wavy()
    @test_throws ArgumentError limit_net(net, [[1, 1]])
    @test_throws ArgumentError limit_net(net, [[1, 5]])
    @test_throws ArgumentError limit_net(net, [[1, 2], [2, 3]])
    two(f; options...) =
        Net(; layers=((2, f, true), (1, "identity", true)), input=[1.0 2.0], target=[1.0 2.0], options...)
    @test_throws ArgumentError limit_net(two("relu"), [[1, 2]])
    @test_throws ArgumentError limit_net(two("tanh"; l2=1), [[1, 2]])
    @test_throws ArgumentError Tail(activation("relu"))
end

@testset "steps and relus" begin
    X, Y = normals(8, 2, 20), normals(9, 1, 20)
    @testset "$f" for f in MLPGF.names_where(f -> MLPGF.is_sigmoidal(f) || MLPGF.is_ramp(f))
        net = Net(layers=((3, f, true), (1, "identity", true)), input=X, target=Y)
        q = normals(7, n_params(net))
        limit, chart = limit_net(net, []; sharp=[2]), limit_net(net, []; sharp=[2], ε=0.1)
        q = MLPGF.normalise!(q, limit.layers)
        θ = from_limit(limit.layers, q, [0.1])
        @test loss(net, θ) ≈ loss(chart, q) rtol = 1e-13
        back, ε = to_limit(limit.layers, θ)
        @test back ≈ q rtol = 1e-13
        @test ε ≈ [0.1] rtol = 1e-13
        # What is left at a distance is what the nearest sample has: the second nearest has exp(-20) times as much.
        h = abs.(vec(q[[3, 4]]' * X) .+ q[8])
        nearest, second = sort(h)[1:2]
        e = (second^2 - nearest^2) / 80 / max(second + nearest, 1)
        setprecision(BigFloat, 4000) do
            exact = with_number_type(BigFloat, net)
            base = loss(with_number_type(BigFloat, limit), big.(q))
            δ = abs(MLPGF.derivatives(activation(f), -big(nearest) / e)[1] - (MLPGF.is_ramp(activation(f)) ? 0 :
                                                                             MLPGF.floor_of(activation(f))))
            MLPGF.is_ramp(activation(f)) && (δ *= e)
            f in ("tanh", "sigmoid", "softplus", "silu") &&
                @test Float64((loss(exact, from_limit(limit.layers, big.(q), [e])) - base) / δ) ≈
                      channel_coefficients(limit, q)[1] rtol = 1e-6
        end
    end
    @testset "which samples pull" begin
        # A sample pulls if it is the nearest for some line between the two sides: tried are 20 000 lines.
        net = Net(layers=((1, "tanh", true), (1, "identity", true)), input=X, target=Y)
        limit = limit_net(net, []; sharp=[1])
        q = MLPGF.place_steps!(limit, [0.3, -0.8, 0.1, 0.7, 0.05])
        samples, c, X1, h = MLPGF.pulling(limit, q, 1, 1)
        found, rng = Set{Int}(), MersenneTwister(1)
        for k in 1:20_000
            u = q[1:3] + (0.02 + k / 20_000) * randn(rng, 3)
            d = sign.(h) .* vec(transpose(X1) * u)
            all(>(0), d) && push!(found, argmin(d))
        end
        _, _, all_c = MLPGF.sharp_samples(limit, q, 1, 1)
        @test Set(samples) == Set(i for i in found if all_c[i] < 0)
        @test !isempty(samples) && length(found) > length(samples)
    end
    @testset "a step among so many samples that none of them is apart" begin
        net = Net(layers=((1, "tanh", true), (1, "identity", true)), input=reshape(0.1:0.1:2, 1, :), target=ones(1, 20))
        limit, q = limit_net(net, []; sharp=[1]), [1.0, 0.0, 0.5, 0.0]
        @test MLPGF.with_insides(limit, q, [1.0]) == (limit, q)
    end
    @testset "samples on the kink, $f" for f in ("softplus", "gelu", "silu")
        # A relu with a sample below it at its kink, on one side of which the residuals pull to one, on the other to the
        # other side.
        x = collect(-1:0.1:1.0)
        y = max.(x, 0) .- 0.3 .* (x .== 0)
        net = Net(layers=((1, f, true), (1, "identity", true)), input=permutedims(x), target=permutedims(y))
        limit = limit_net(net, []; sharp=[1])
        search = MLPGF.Rounds{Float64}(MLPGF.MinimizeOptions(), MLPGF.Monitor(), time(), 0, MLPGF.Stop.running)
        n, kind, q = MLPGF.search_in_limit!(search, limit, limit, [1.0, 0.03, 1.0, 0.0], 200, Inf)
        MLPGF.normalise!(q, limit.layers)
        @test kind in ("minimum", "degenerate") && MLPGF.samples_on_kinks(limit, q) == [[11]]
        h, X1, place = MLPGF.kink_coefficient(limit, q, 1)
        @test channel_coefficients(limit, q) == [h]
        # The loss at a distance, and with the sample a little nearer or farther, where it is higher.
        exact, ε = with_number_type(BigFloat, net), 1e-9
        above(θ) = Float64((loss(exact, big.(θ)) - loss(with_number_type(BigFloat, limit), big.(q))) / ε)
        θ = from_limit(limit, q, [ε])
        @test dot(θ[1:2], [0, 1]) ≈ place[1] rtol = 1e-6
        @test above(θ) ≈ h rtol = 1e-5
        for shift in (-0.1, 0.1)
            other = copy(θ)
            other[2] += shift
            @test above(other) > h
        end
    end
    @testset "a line, and units turned around it" begin
        net = Net(layers=((3, "softplus", true), (1, "identity", true)), input=X, target=Y)
        θ = normals(7, n_params(net))
        θ[8] = 30                                             # unit 2 is linear
        θ[7] = abs(θ[7])
        pairs = MLPGF.with_lines(net, θ)
        @test [(c.kind, c.units) for (_, c) in pairs] == [("line", [2]), ("line", [2])]
        for (x, _) in pairs
            limit = limit_net(net, []; sharp=[2])
            q, _ = to_limit(limit.layers, x)
            @test predict(limit, q) ≈ predict(net, θ) rtol = 1e-9
            labels = [e.label for e in MLPGF.invariances(limit, q) if 2 in e.units && e.layer == 1]
            @test "linear units" in labels
        end
        @test pairs[2][1][7] == -θ[7]
        @test isempty(MLPGF.with_lines(net, normals(7, n_params(net))))
    end
    @test_throws ArgumentError Sharp(activation("relu"), 0.1)
    @test_throws ArgumentError Sharp(activation("tanh"), -1)
    @test_throws ArgumentError Inside(activation("softplus"))
    @test_throws ArgumentError limit_net(wavy(), [[1]]; sharp=[1])
end
