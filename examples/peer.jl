# Our gradients and Hessians beside those of MLPGradientFlow.jl, in one Julia process, taking turns: one hidden layer of k
# softplus units, 2 inputs, one thread. Needs MLPGradientFlow.jl, on Julia 1.10 or newer.
using LinearAlgebra, Printf
import MLPGF, MLPGradientFlow

"Shortest times in seconds of several functions that take turns."
function shortest(fs...; budget=0.5)
    best, spent = fill(Inf, length(fs)), 0.0
    counts = map(fs) do f
        f()
        clamp(round(Int, 5e-4 / max(@elapsed(f()), 1e-7)), 1, 1000)
    end
    while spent < budget
        for (i, f) in enumerate(fs)
            t = @elapsed for _ in 1:counts[i]
                f()
            end
            best[i], spent = min(best[i], t / counts[i]), spent + t
        end
    end
    return best
end

function main()
    BLAS.set_num_threads(1)
    ratios = Dict("gradient" => Float64[], "hessian" => Float64[])
    for k in (10, 50, 100), N in (10, 100, 1000, 10_000, 100_000)
        X, Y = randn(2, N), randn(1, N)
        own = MLPGF.Net(layers=((k, MLPGF.softplus, true), (1, MLPGF.activation("identity"), true)), input=X, target=Y)
        p = MLPGF.random_params(0, own)
        g, H = similar(p), k * N <= 1_000_000 ? zeros(length(p), length(p)) : nothing
        peer = MLPGradientFlow.Net(layers=((k, MLPGradientFlow.softplus, true), (1, identity, true)), input=X, target=Y,
                                   verbosity=0)
        q = MLPGradientFlow.random_params(peer)
        h = zero(q)
        compare(quantity, ours, theirs) = begin
            a, b = shortest(ours, theirs)
            push!(ratios[quantity], b / a)
            @printf("k = %3d, N = %6d  %-8s %10.2f µs, MLPGradientFlow.jl %12.2f µs, ratio %6.2f\n", k, N, quantity, 1e6a, 1e6b, b / a)
        end
        compare("gradient", () -> MLPGF.gradient!(g, own, p), () -> MLPGradientFlow.gradient!(h, peer, q))
        if H !== nothing
            G = MLPGradientFlow.Hessian(q)
            compare("hessian", () -> MLPGF.hessian!(H, own, p), () -> MLPGradientFlow.hessian!(G, peer, q))
        end
    end
    for (quantity, r) in ratios
        @printf("%s: geometric mean %.2f, smallest %.2f\n", quantity, exp(sum(log, r) / length(r)), minimum(r))
    end
end
main()
