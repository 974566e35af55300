# Times MLPGradientFlow.jl, and the package in the folder that it is given, on request: a line on stdin, a line on stdout.
pushfirst!(LOAD_PATH, ARGS[1])
using LinearAlgebra, Random
import MLPGF, MLPGradientFlow

const ACTIVATIONS = Dict("softplus" => MLPGradientFlow.softplus, "tanh" => tanh, "sigmoid" => MLPGradientFlow.sigmoid,
                         "relu" => MLPGradientFlow.relu, "identity" => identity)

"A net (in `words`: inputs, samples, and width,activation,bias of each layer) and its derivatives, by name."
function derivatives(of, words)
    D, N = parse.(Int, words[1:2])
    shapes = [(parse(Int, width), String(activation), parse(Bool, bias)) for (width, activation, bias) in split.(words[3:end], ',')]
    rng = MersenneTwister(0)
    data = (input=randn(rng, D, N), target=randn(rng, shapes[end][1], N))
    return of == "peer" ? peer(shapes, data) : own(shapes, data)
end

function peer(shapes, data)
    net = MLPGradientFlow.Net(; layers=Tuple((k, ACTIVATIONS[f], bias) for (k, f, bias) in shapes), data..., verbosity=0)
    p = MLPGradientFlow.random_params(net)
    G, H = zero(p), Ref{Any}()
    hessian!(H) = () -> MLPGradientFlow.hessian!(H, net, p)
    return Dict("gradient" => () -> MLPGradientFlow.gradient!(G, net, p),
                "hessian" => () -> (isassigned(H) || (H[] = hessian!(MLPGradientFlow.Hessian(p))); H[]()))
end

function own(shapes, data)
    net = MLPGF.Net(; layers=Tuple((k, MLPGF.activation(f), bias) for (k, f, bias) in shapes), data...)
    p = MLPGF.random_params(0, net)
    G, H = zero(p), Ref{Matrix{Float64}}()
    return Dict("gradient" => () -> MLPGF.gradient!(G, net, p),
                "hessian" => () -> (isassigned(H) || (H[] = zeros(length(p), length(p))); MLPGF.hessian!(H[], net, p)))
end

function seconds(f::F, n) where {F}
    begun = time_ns()
    for _ in 1:n
        f()
    end
    return (time_ns() - begun) / 1e9
end

function main()
    BLAS.set_num_threads(1)
    calls = Dict{String,Any}()
    for line in eachline(stdin)
        words = String.(split(line))
        if words[1] == "version"
            println(VERSION)
        elseif words[1] == "net"
            calls[words[2]] = derivatives(words[2], words[3:end])
            println("ready")
        else
            println(seconds(calls[words[2]][words[1]], parse(Int, words[3])))
        end
        flush(stdout)
    end
end

main()
