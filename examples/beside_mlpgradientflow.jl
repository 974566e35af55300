# MLPGF beside MLPGradientFlow.jl: gradient, Hessian, flow and training, in turns in one process with one thread. Needs a
# Julia and a project that have MLPGradientFlow; `docs/performance.md` shows what it printed.
#   julia --project=... examples/beside_mlpgradientflow.jl
pushfirst!(LOAD_PATH, joinpath(@__DIR__, "..", "julia"))
using LinearAlgebra, Logging, Printf, Random, Statistics
import MLPGF, MLPGradientFlow

"Shortest CPU time of several runs of each function, in turns; the first call compiles."
function shortest(functions...; budget=0.5)
    foreach(f -> f(), functions)
    counts = map(functions) do f
        once = clock(f, 1)
        max(1, floor(Int, 1e-3 / max(once, 1e-6)))
    end
    best, spent = fill(Inf, length(functions)), 0.0
    while true
        for (i, f) in enumerate(functions)
            t = clock(f, counts[i])
            best[i], spent = min(best[i], t / counts[i]), spent + t
        end
        spent < budget || break
    end
    return best
end

"CPU time of `n` calls in seconds."
clock(f, n) = (begun = microseconds(); foreach(_ -> f(), 1:n); (microseconds() - begun) / 1e6)
microseconds() = ccall(:clock, Clong, ())

"A student and its twin of the other package, with start; targets are a teacher's, with noise."
function twins(D, k, N; seed, noise)
    rng = MersenneTwister(seed)
    X, W, v = randn(rng, D, N), randn(rng, k, D), randn(rng, 1, k)
    Y = v * log1p.(exp.(W * X .+ randn(rng, k))) .+ noise .* randn(rng, 1, N)
    net = MLPGF.Net(layers=((k, MLPGF.softplus, true), (1, MLPGF.activation("identity"), true)), input=X, target=Y)
    peer = MLPGradientFlow.Net(layers=((k, MLPGradientFlow.softplus, true), (1, identity, true)), input=X, target=Y,
                               verbosity=0)
    p, q = MLPGF.random_params(seed, net), MLPGradientFlow.random_params(peer)
    for (w, (W, b)) in zip((q.w1, q.w2), MLPGF.unpack(net, p))
        w .= hcat(W, b)
    end
    return net, peer, p, q
end

function derivatives()
    println("| k, N | ∇L, µs | MLPGradientFlow.jl | ratio | ∇²L, µs | MLPGradientFlow.jl | ratio |\n|---|---|---|---|---|---|---|")
    ratios = zeros(0, 2)
    for k in (10, 50, 100), N in (10, 100, 1000, 10_000)
        net, peer, p, q = twins(2, k, N; seed=1, noise=0.2)
        G, H, A, B = zero(p), zeros(length(p), length(p)), zero(q), MLPGradientFlow.Hessian(q)
        g = shortest(() -> MLPGF.gradient!(G, net, p), () -> MLPGradientFlow.gradient!(A, peer, q))
        h = shortest(() -> MLPGF.hessian!(H, net, p), () -> MLPGradientFlow.hessian!(B, peer, q))
        @printf("| %d, %d | %.3g | %.3g | %.2g | %.3g | %.3g | %.2g |\n", k, N, 1e6g[1], 1e6g[2], g[2] / g[1],
                1e6h[1], 1e6h[2], h[2] / h[1])
        ratios = [ratios; g[2] / g[1] h[2] / h[1]]
    end
    @printf("Geometric means %.2g and %.2g.\n", exp.(mean(log.(ratios), dims=1))...)
end

"Parameters of the other package in this one's order."
flattened(q) = reduce(vcat, [vcat(vec(permutedims(w[:, 1:end-1])), w[:, end]) for w in (q.w1, q.w2)])

function flows(T=10.0)
    println("\n| N, tolerance | flow to t = $T, ms | distance | MLPGradientFlow.jl, ms | distance | ratio of times |\n|---|---|---|---|---|---|")
    for N in (100, 1000, 10_000), tolerance in (1e-6, 1e-9)
        net, peer, p, q = twins(2, 8, N; seed=1, noise=0.0)
        exact = MLPGF.flow(net, p; alg=MLPGF.Rodas5P(), maxT=T, abstol=1e-13, reltol=1e-13).x
        distance(x) = norm(x - exact) / norm(exact)
        own() = MLPGF.flow(net, p; maxT=T, abstol=tolerance, reltol=tolerance)
        template = MLPGradientFlow.Hessian(q)
        # the other package follows the sum over samples, this one their mean: its time is shorter by N
        other() = MLPGradientFlow.train(peer, q; maxT=T / N, abstol=tolerance, reltol=tolerance, save_everystep=false,
                                        maxiterations_optim=0, hessian_template=template, verbosity=0, result=:raw)
        t = shortest(own, other)
        y = zero(q)
        y .= other().ode.u[end]
        @printf("| %d, %.0e | %.3g | %.0e | %.3g | %.0e | %.2g |\n", N, tolerance, 1e3t[1], distance(own().x), 1e3t[2],
                distance(flattened(y)), t[2] / t[1])
    end
end

function trainings(; seeds=1:8, limit=5.0, goal=1e-9)
    println("\n| D, k, N | train to ‖∇L‖ ≤ 1e-9, ms | arrived | MLPGradientFlow.jl, ms | arrived | ratio where both arrive |\n|---|---|---|---|---|---|")
    for (D, k, N) in ((2, 2, 200), (3, 4, 1000), (5, 8, 2000))
        times, arrived = zeros(length(seeds), 2), falses(length(seeds), 2)
        for (i, seed) in enumerate(seeds)
            net, peer, p, q = twins(D, k, N; seed=seed, noise=0.2)
            own() = MLPGF.train(net, p; maxT=10, abstol=1e-3, reltol=1e-3, maxtime_ode=limit, maxtime_optim=limit,
                                min_gnorm=goal)
            template = MLPGradientFlow.Hessian(q)
            other() = MLPGradientFlow.train(peer, q; maxT=10 / N, abstol=1e-3, reltol=1e-3, maxtime_ode=limit,
                                            maxtime_optim=limit, min_gnorm=goal, save_everystep=false,
                                            hessian_template=template, verbosity=0, result=:raw)
            times[i, :] .= shortest(own, other; budget=0.0)
            gnorms = norm(MLPGF.gradient(net, own().x), Inf), norm(MLPGF.gradient(net, flattened(other().x)), Inf)
            arrived[i, :] .= gnorms .<= 1.001goal
        end
        mean_of(which, c) = any(which) ? exp(mean(log.(times[which, c]))) : NaN
        both = arrived[:, 1] .& arrived[:, 2]
        @printf("| %d, %d, %d | %.3g | %d of %d | %.3g | %d of %d | %.2g |\n", D, k, N, 1e3mean_of(arrived[:, 1], 1),
                sum(arrived[:, 1]), length(seeds), 1e3mean_of(arrived[:, 2], 2), sum(arrived[:, 2]), length(seeds),
                mean_of(both, 2) / mean_of(both, 1))
    end
end

BLAS.set_num_threads(1)
disable_logging(Logging.Info)
derivatives()
flows()
trainings()
