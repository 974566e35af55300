# Times MLPGradientFlow.jl on request: a line on stdin, a line on stdout.
using MLPGradientFlow, Random

const ACTIVATIONS = Dict("softplus" => softplus, "tanh" => tanh, "sigmoid" => sigmoid, "relu" => relu, "identity" => identity)

function seconds(f::F, n) where {F}
    begun = time_ns()
    for _ in 1:n
        f()
    end
    return (time_ns() - begun) / 1e9
end

function main()
    net = p = G = H = nothing
    for line in eachline(stdin)
        words = split(line)
        if words[1] == "version"
            println(VERSION)
        elseif words[1] == "net"
            D, N = parse.(Int, words[2:3])
            layers = map(words[4:end]) do word
                width, activation, bias = split(word, ',')
                (parse(Int, width), ACTIVATIONS[activation], parse(Bool, bias))
            end
            rng = MersenneTwister(0)
            net = Net(layers = Tuple(layers), input = randn(rng, D, N), target = randn(rng, layers[end][1], N))
            p = random_params(net)
            G, H = zero(p), nothing
            println("ready")
        else
            n = parse(Int, words[2])
            if words[1] == "gradient"
                println(seconds(() -> MLPGradientFlow.gradient!(G, net, p), n))
            else
                H === nothing && (H = MLPGradientFlow.Hessian(p))
                println(seconds(() -> MLPGradientFlow.hessian!(H, net, p), n))
            end
        end
        flush(stdout)
    end
end

main()
