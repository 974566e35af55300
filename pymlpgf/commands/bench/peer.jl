# Times SimpleChains.jl and MLPGradientFlow.jl, where the project has them, and the package in the folder that it is
# given, on request: a line on stdin, a line on stdout.
pushfirst!(LOAD_PATH, ARGS[1])
using LinearAlgebra, Random
import MLPGF

const PEERS = [name for name in ("SimpleChains", "MLPGradientFlow") if Base.find_package(name) !== nothing]
"SimpleChains" in PEERS && @eval import SimpleChains
"MLPGradientFlow" in PEERS && @eval import MLPGradientFlow

"How to compute derivatives of a net, by name; nothing for what the package does not know."
function derivatives(of, words)
    T = words[1] == "float32" ? Float32 : Float64
    D, N = parse.(Int, words[2:3])
    loss = words[4]
    shapes = [(parse(Int, width), String(activation), parse(Bool, bias)) for (width, activation, bias) in split.(words[5:end], ',')]
    rng = MersenneTwister(0)
    O = shapes[end][1]
    data = (input=randn(rng, T, D, N), target=loss == "nll" ? rand(rng, 1:O, N) : randn(rng, T, O, N))
    of == "SimpleChains.jl" && return simple_chains(T, shapes, loss, data)
    of == "MLPGradientFlow.jl" && return peer(T, shapes, loss, data)
    return own(shapes, loss, data)
end

function peer(T, shapes, loss, data)
    known = Dict("softplus" => MLPGradientFlow.softplus, "tanh" => tanh, "sigmoid" => MLPGradientFlow.sigmoid,
                 "relu" => MLPGradientFlow.relu, "identity" => identity)
    # Hessians of deep nets compile for minutes.
    (T === Float32 || loss == "nll" || length(shapes) > 3 || !all(f in keys(known) for (_, f, _) in shapes)) && return Dict()
    net = MLPGradientFlow.Net(; layers=Tuple((k, known[f], bias) for (k, f, bias) in shapes), data..., verbosity=0)
    p = MLPGradientFlow.random_params(net)
    G, H = zero(p), Ref{Any}()
    hessian!(H) = () -> MLPGradientFlow.hessian!(H, net, p)
    return Dict("gradient" => () -> MLPGradientFlow.gradient!(G, net, p),
                "hessian" => () -> (isassigned(H) || (H[] = hessian!(MLPGradientFlow.Hessian(p))); H[]()))
end

function simple_chains(T, shapes, loss, data)
    known = Dict("tanh" => tanh, "sigmoid" => SimpleChains.σ, "relu" => SimpleChains.relu, "identity" => identity,
                 "softmax" => identity)
    all(f in keys(known) for (_, f, _) in shapes) || return Dict()
    layers = [SimpleChains.TurboDense{bias}(known[f], k) for (k, f, bias) in shapes]
    chain = SimpleChains.SimpleChain(SimpleChains.static(size(data.input, 1)), layers...)
    model = SimpleChains.add_loss(chain, loss == "nll" ? SimpleChains.LogitCrossEntropyLoss(UInt32.(data.target)) :
                                         SimpleChains.SquaredLoss(data.target))
    p = SimpleChains.init_params(chain, T)
    G = similar(p)
    return Dict("gradient" => () -> SimpleChains.valgrad!(G, model, data.input, p))
end

function own(shapes, loss, data)
    net = MLPGF.Net(; layers=Tuple((k, MLPGF.activation(f), bias) for (k, f, bias) in shapes), data..., loss=loss)
    p = MLPGF.random_params(0, net)
    G, v, H = zero(p), copy(p), Ref{Matrix{eltype(p)}}()
    return Dict("gradient" => () -> MLPGF.gradient!(G, net, p), "hvp" => () -> MLPGF.hvp!(G, net, p, v),
                "hessian" => () -> (isassigned(H) || (H[] = zeros(eltype(p), length(p), length(p))); MLPGF.hessian!(H[], net, p)))
end

function seconds(f::F, n) where {F}
    begun = ccall(:clock, Clong, ())  # CPU time in microseconds
    for _ in 1:n
        f()
    end
    return (ccall(:clock, Clong, ()) - begun) / 1e6
end

function main()
    BLAS.set_num_threads(1)
    calls = Dict{String,Any}()
    for line in eachline(stdin)
        words = String.(split(line))
        if words[1] == "packages"
            println(join(["pymlpgf-in-Julia"; PEERS .* ".jl"], " "))
        elseif words[1] == "net"
            calls[words[2]] = derivatives(words[2], words[3:end])
            println(join(keys(calls[words[2]]), " "))
        else
            println(Base.invokelatest(seconds, calls[words[2]][words[1]], parse(Int, words[3])))
        end
        flush(stdout)
    end
end

main()
