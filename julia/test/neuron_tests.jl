# Units beside each other, recordings along a run, and the eigenvalues that these follow.

using Test, LinearAlgebra
using MLPGF
using MLPGF: angle_between, linked, ExtremeEigenvalues, extremes!, RecordedProjections, recorded_unit_cosines,
    RecordedNorm

Base.include(@__MODULE__, joinpath(@__DIR__, "problems.jl"))

net_of(f, k; D=2, N=20, O=1) =
    Net(layers=((k, f, true), (O, identity, true)), input=normal(1, D, N), target=normal(2, O, N))

@testset "angles" begin
    a = normal(3, 4)
    for φ in (1e-9, 1e-3, 1.0, 3.1)
        b = cos(φ) * normalize(a)
        e = normalize(normal(4, 4) - dot(normal(4, 4), a) / dot(a, a) * a)
        @test angle_between(a, 3 * (b + sin(φ) * e)) ≈ φ rtol = 1e-7
    end
    @test angle_between(a, a) == 0 && angle_between(a, -2a) ≈ π && angle_between(a, zero(a)) == π / 2
end

@testset "likeness modulo sign" begin
    net = net_of(tanh, 3)
    θ = normal(5, n_params(net))
    θ[MLPGF.incoming(net.layers[1], 2)] = -2 * θ[MLPGF.incoming(net.layers[1], 1)]
    L = compare_neurons(net.layers, θ)
    @test L.angle[1, 2] < 1e-15 && L.sign[1, 2] == -1 && L.cosine[1, 2] ≈ -1
    @test L.distance[1, 2] ≈ norm(θ[MLPGF.incoming(net.layers[1], 1)])
    @test L.angle == L.angle' && diag(L.angle) == zeros(3)
    L = compare_neurons(net_of(softplus, 3).layers, θ)         # neither odd nor even
    @test L.angle[1, 2] ≈ π && L.sign[1, 2] == 1
    mixed = Net(layers=((3, (tanh, relu, tanh), true), (1, identity, true)), input=normal(1, 2, 9),
                target=normal(2, 1, 9))
    L = compare_neurons(mixed.layers, θ)
    @test L.angle[1, 2] == Inf && L.distance[3, 2] == Inf && isfinite(L.angle[1, 3])
    L = compare_neurons(mixed.layers, θ, net.layers, θ)        # each against a teacher, by its own symmetry
    @test L.angle[1, 2] < 1e-15 && L.angle[2, 1] ≈ π
    @test_throws ArgumentError compare_neurons(net.layers, θ, net_of(tanh, 2; D=3).layers, θ)
end

@testset "linkage" begin
    x = [0.0, 1.0, 2.1, 10.0, 10.5]
    D = abs.(x .- x')
    @test linked(D, 1.2) == [1, 1, 1, 2, 2]                     # a chain
    @test linked(D, 1.2; average=true) == [1, 1, 2, 3, 3]       # (2.1 + 1.1)/2 = 1.6 from the pair
    @test linked(D, 1.6 + 1e-12; average=true) == [1, 1, 1, 2, 2]
    @test linked(D, 0.1) == 1:5 && linked(D, 100) == ones(5)
    @test linked([0 Inf; Inf 0], 100) == [1, 2]
end

@testset "merged units" begin
    for (f, scale) in ((tanh, 1.0), (softplus, 1.0), (relu, 3.0), (MLPGF.square, -2.0), (cube, -2.0), (sigmoid2, -1.0))
        net = net_of(f, 4; O=2)
        θ = normal(6, n_params(net))
        hidden, last = net.layers
        # units 3 and 4 compute what unit 1 does, but for sign and scale
        for j in (3, 4)
            s = f in (tanh, sigmoid2) ? (j == 3 ? -1 : 1) : f === softplus ? 1 : scale
            θ[MLPGF.incoming(hidden, j)] = s * θ[MLPGF.incoming(hidden, 1)]
        end
        layers, source, y = merge_neurons(net.layers, θ, [[1, 3, 4]])
        small = MLPGF.with_layers(net, layers, source)
        @test n_params(small) == n_params(net) - 10
        @test predict(small, y) ≈ predict(net, θ) rtol = 1e-13
    end
    net = net_of(tanh, 3)
    θ = normal(7, n_params(net))
    wide, ϑ = split_neuron(net, θ, 2, 0.3)
    layers, source, y = merge_neurons(wide.layers, ϑ, [[2, 4]])
    @test y ≈ θ
    # near duplicates: the average, weighted by what goes out
    θ[MLPGF.outgoing(net.layers[2], 1)] .= 3
    θ[MLPGF.outgoing(net.layers[2], 2)] .= 1
    a, b = (θ[MLPGF.incoming(net.layers[1], j)] for j in 1:2)
    s = dot(a, b) < 0 ? -1 : 1
    y = merge_neurons(net.layers, θ, [[1, 2]])[3]
    @test y[MLPGF.incoming(net_of(tanh, 2).layers[1], 1)] ≈ (3a + s * b) / 4
    @test y[MLPGF.outgoing(net_of(tanh, 2).layers[2], 1)] ≈ [3 + s]
    @test_throws ArgumentError merge_neurons(net.layers, θ, [[1, 2], [2, 3]])
    @test_throws ArgumentError merge_neurons(net.layers, θ, [Int[]])
    @test_throws ArgumentError merge_neurons(net.layers, θ, [[1, 4]])
end

@testset "clusters across runs" begin
    net = net_of(tanh, 3)
    hidden = net.layers[1]
    directions = [[1.0, 0.0, 0.5], [0.0, 1.0, -0.5]]            # found by all runs, up to sign, scale and order
    points = zeros(n_params(net), 4)
    for s in 1:4
        points[:, s] = normal(10 + s, n_params(net))
        order = circshift([1, 2, 3], s)
        for (d, v) in enumerate(directions)
            points[MLPGF.incoming(hidden, order[d]), s] = (-1)^s * (0.5 + s) * (v + 1e-3 * normal(20 + s, 3))
        end
        points[MLPGF.incoming(hidden, order[3]), s] = [[1.0, 1, 1], [-1.0, 1, 1], [1.0, -1, 3], [1.0, 1, -3]][s]
    end
    c = cluster_neurons(net.layers, points; tolerance=0.05)
    @test size(c.labels) == (3, 4) && count(isequal(1), c.labels) == count(isequal(2), c.labels) == 4
    for s in 1:4, (d, v) in enumerate(directions)
        j = circshift([1, 2, 3], s)[d]
        φ = angle_between(c.centre[:, c.labels[j, s]], v)
        @test min(φ, π - φ) < 5e-3
        @test dot(c.sign[j, s] * points[MLPGF.incoming(hidden, j), s], c.centre[:, c.labels[j, s]]) > 0
    end
    @test all(c.spread[1:2] .< 5e-3) && all(iszero, c.spread[3:end])
    c = cluster_neurons(net.layers, points; tolerance=0.05, distances=true)       # of different lengths
    @test maximum(c.labels) == 12
end

@testset "binomial intervals" begin
    # of Clopper and Pearson, at whose ends the tails are α/2: closed forms at the ends, and a table of k = 3, n = 10
    low, high = binomial_interval(0, 12; confidence=0.9)
    @test low == 0
    @test high ≈ 1 - 0.05^(1 / 12) rtol = 1e-12
    low, high = binomial_interval(12, 12)
    @test low ≈ 0.025^(1 / 12) rtol = 1e-12
    @test high == 1
    @test collect(binomial_interval(3, 10)) ≈ [0.06673951, 0.6524529] rtol = 1e-6
    @test binomial_interval(500, 2000)[1] < 0.25 < binomial_interval(500, 2000)[2]
    @test_throws ArgumentError binomial_interval(3, 2)
end

@testset "eigenvalues from products" begin
    for n in (5, 60, 400)
        Q = Matrix(qr(normal(30, n, n)).Q)
        λ = [-2.0; range(-0.5, 1, length=n - 3); 7.0; 9.0]
        e = ExtremeEigenvalues{Float64}(n, 1, 2)
        A = Q * Diagonal(λ) * Q'
        @test extremes!(e, (y, v) -> mul!(y, A, v)) ≈ [-2, 7, 9] rtol = 1e-8
        cold = e.products
        # the next operator is near, and one eigenvalue overtakes the others from within
        for step in 1:5
            λ[end] += 0.01
            λ[2] = step == 5 ? 11.0 : λ[2]
            A = Q * Diagonal(λ) * Q'
            before = e.products
            @test extremes!(e, (y, v) -> mul!(y, A, v)) ≈ sort(λ)[[1, n - 1, n]] rtol = 1e-7
            n == 400 && step < 5 && @test e.products - before < cold
        end
    end
    # multiple eigenvalues, zero operators, Float32
    e = ExtremeEigenvalues{Float64}(6, 0, 2)
    @test extremes!(e, (y, v) -> y .= 3 .* v) ≈ [3, 3]
    @test extremes!(e, (y, v) -> y .= 0 .* v) == [0, 0]
    e = ExtremeEigenvalues{Float32}(50, 1, 1)
    λ = Float32.([-1; range(0, 2, length=48); 5])
    @test extremes!(e, (y, v) -> y .= λ .* v) ≈ [-1, 5] rtol = 1e-3
    @test_throws ArgumentError ExtremeEigenvalues{Float64}(6, 0, 7)
    @test_throws ArgumentError ExtremeEigenvalues{Float64}(6, 0, 0)
end

@testset "recorded along a run" begin
    net = net_of(tanh, 3)
    θ = normal(40, n_params(net))
    P = n_params(net)
    V = normal(41, P, 2)
    observables = [
        "λ" => recorded_eigenvalues(net; lowest=1, highest=2), "norm" => RecordedNorm(),
        "projections" => RecordedProjections(V, θ), "in" => recorded_unit_norms(net.layers, 1, false),
        "out" => recorded_unit_norms(net.layers, 1, true),
        "pairs" => recorded_unit_cosines(net.layers, 1, [(1, 2), (1, 3)]),
    ]
    for alg in (GradientDescent(learning_rate=0.05), Tsit5())
        t = flow(net, θ; alg=alg, maxT=2, observables=observables, save_everystep=true).trajectory
        @test t.names[1:5] == ["λ[1]", "λ[2]", "λ[3]", "norm", "projections[1]"]
        @test size(t.observables) == (3 + 1 + 2 + 3 + 3 + 2, length(t))
        for m in 1:3:length(t)
            x = t.x[:, m]
            λ = eigvals(Symmetric(hessian(net, x)))
            @test t.observables[1:3, m] ≈ λ[[1, P - 1, P]] atol = 1e-7 * maximum(abs, λ)
            @test t["norm"][m] ≈ norm(x)
            @test t.observables[5:6, m] ≈ V' * (x - θ) atol = 1e-12
            rows = [x[MLPGF.incoming(net.layers[1], j)] for j in 1:3]
            @test t.observables[7:9, m] ≈ norm.(rows)
            @test t.observables[10:12, m] ≈ abs.(x[end-3:end-1])
            @test t["pairs[2]"][m] ≈ dot(rows[1], rows[3]) / norm(rows[1]) / norm(rows[3])
        end
    end
    along = neurons_along(net.layers, [θ 2θ])
    @test along.incoming[:, 2] ≈ 2 * along.incoming[:, 1]
    @test along.cosine[1, 2, 1] ≈ MLPGF.compare_neurons(net.layers, θ).cosine[1, 2]
end

@testset "recordings that are interrupted, and those of an interrupted run" begin
    net = net_of(tanh, 3)
    θ = normal(50, n_params(net))
    calls = Ref(0)
    slow(x) = (calls[] += 1; calls[] > 4 && MLPGF.heartbeat(net.monitor); 1.0)
    monitor = Monitor((phase, rest...) -> phase == :evaluation ? Stop.interrupted : Stop.running; interval=0.0)
    monitor.beat = -Inf
    beat(x) = (net.monitor === nothing || (net.monitor.beat = -Inf); slow(x))
    r = flow(net, θ; maxT=2, save_everystep=true, observables=["slow" => beat], monitor=monitor)
    seen = r.trajectory["slow"]
    @test r.stopped_by == Stop.maxT && 0 < count(isnan, seen) < length(seen)
    calls[] = 0
    stopped = Monitor((rest...) -> Stop.interrupted; interval=0.0)
    r = flow(net, θ; maxT=2, save_everystep=true, observables=["slow" => beat], monitor=stopped)
    @test r.stopped_by == Stop.interrupted && all(isequal(1.0), r.trajectory["slow"])
end

@testset "a time limit does not end recordings" begin
    net = net_of(tanh, 2)
    r = flow(net, normal(60, n_params(net)); maxT=1, save_everystep=true)
    monitor = MLPGF.start!(Monitor(), -10.0)               # long over
    MLPGF.watch!(net, monitor)
    seen = MLPGF.observe(r.trajectory, ["a" => x -> (MLPGF.heartbeat(net.monitor); norm(x))], monitor, Stop.maxtime)
    MLPGF.watch!(net, nothing)
    @test seen["a"] ≈ [norm(x) for x in eachcol(r.trajectory.x)]
end
