# Losses that depend on a number μ, with the derivatives of their gradients by it.

"""
    Family <: AbstractNet{Float64}

A loss L(θ; μ), with a field `μ`. Beside what every net has, there are `drift!(y, family, θ)`, ∂∇L/∂μ;
`drift_hvp(family, θ, v)`, ∂∇²L/∂μ v; and `drift_slope(family, θ)`, ∂²∇L/∂μ². All of them are at the present μ, which
`place!(family, μ)` changes.
"""
abstract type Family <: AbstractNet{Float64} end
place!(f::Family, μ) = (f.μ = μ; f)
drift_slope(::Family, θ) = zero(θ)

"""
    Decay(net, μ)

The loss of a net without `l2`, and (μ/2)‖θ‖².
"""
mutable struct Decay{N<:AbstractNet{Float64}} <: Family
    net::N
    μ::Float64
end
n_params(f::Decay) = n_params(f.net)
n_samples(f::Decay) = n_samples(f.net)
watch!(f::Decay, monitor) = watch!(f.net, monitor)
loss_scale(f::Decay, θ) = loss_scale(f.net, θ)
loss(f::Decay, θ) = loss(f.net, θ) + f.μ * sum(abs2, θ) / 2
function value_and_gradient!(g::Vector, f::Decay, θ)
    value = value_and_gradient!(g, f.net, θ)
    g .+= f.μ .* θ
    return value + f.μ * sum(abs2, θ) / 2
end
function hessian!(H::Matrix, f::Decay, θ)
    hessian!(H, f.net, θ)
    for i in 1:size(H, 1)
        H[i, i] += f.μ
    end
    return H
end
hvp!(y::Vector, f::Decay, θ, v) = (hvp!(y, f.net, θ, v); y .+= f.μ .* v)
drift!(y, ::Decay, θ) = copyto!(y, θ)
drift_hvp(::Decay, θ, v) = copy(v)

"""
    Between(a, b, μ)

(1 − μ) times the loss of a net and μ times that of another, with the same parameters. For two nets that differ in
targets, squared errors make this the loss for the targets between, less a number.
"""
mutable struct Between{A<:AbstractNet{Float64},B<:AbstractNet{Float64}} <: Family
    a::A
    b::B
    μ::Float64
    y::Vector{Float64}
    H::Matrix{Float64}
end
Between(a, b, μ) = Between(a, b, Float64(μ), zeros(n_params(a)), zeros(0, 0))
n_params(f::Between) = n_params(f.a)
n_samples(f::Between) = max(n_samples(f.a), n_samples(f.b))
watch!(f::Between, monitor) = (watch!(f.a, monitor); watch!(f.b, monitor))
accuracy(f::Between) = max(accuracy(f.a), accuracy(f.b))
loss_scale(f::Between, θ) = max(loss_scale(f.a, θ), loss_scale(f.b, θ))
loss(f::Between, θ) = (1 - f.μ) * loss(f.a, θ) + f.μ * loss(f.b, θ)
function value_and_gradient!(g::Vector, f::Between, θ)
    first, second = value_and_gradient!(g, f.a, θ), value_and_gradient!(f.y, f.b, θ)
    g .= (1 - f.μ) .* g .+ f.μ .* f.y
    return (1 - f.μ) * first + f.μ * second
end
function hessian!(H::Matrix, f::Between, θ)
    isempty(f.H) && (f.H = zero(H))
    hessian!(H, f.a, θ)
    hessian!(f.H, f.b, θ)
    H .= (1 - f.μ) .* H .+ f.μ .* f.H
    return H
end
function hvp!(y::Vector, f::Between, θ, v)
    hvp!(y, f.a, θ, v)
    hvp!(f.y, f.b, θ, v)
    y .= (1 - f.μ) .* y .+ f.μ .* f.y
    return y
end
function drift!(y, f::Between, θ)
    value_and_gradient!(y, f.b, θ)
    value_and_gradient!(f.y, f.a, θ)
    y .-= f.y
    return y
end
drift_hvp(f::Between, θ, v) = hvp(f.b, θ, v) - hvp(f.a, θ, v)

"""
    Blended(net, other, μ)

The net with activations between its own and those of `other`, which has the same layers otherwise.
"""
mutable struct Blended <: Family
    net::Net{Float64}
    μ::Float64
    shared::Base.RefValue{Float64}
    h::Vector{Matrix{Float64}}           # pre-activations of a block, then differences of slopes
end
function Blended(net::Net{Float64}, other::Net{Float64}, μ)
    all(l -> isempty(l.chains), [net.layers; other.layers]) ||
        throw(ArgumentError("there is no way between the activations of limit networks"))
    shared = Ref(Float64(μ))
    blend(a, b) = a === b ? a : Blend(a, b, shared)
    units(l) = Activation[unit_activation(l, j) for j in 1:l.width]
    layers = map(zip(net.layers, other.layers)) do (l, m)
        several = l.activation isa PerUnit || m.activation isa PerUnit
        a = several ? PerUnit(Activation[blend(x, y) for (x, y) in zip(units(l), units(m))]) :
            blend(l.activation, m.activation)
        Layer(l.fan_in, l.width, a, l.bias, l.offset, columns(a, l.width), Chain[])
    end
    mixed = rebuilt(net; layers=layers, threads=1)
    rows = maximum(b.n for b in net.blocks)
    return Blended(mixed, Float64(μ), shared, [zeros(rows, l.width) for l in layers])
end
place!(f::Blended, μ) = (f.μ = f.shared[] = μ; f)
n_params(f::Blended) = n_params(f.net)
n_samples(f::Blended) = n_samples(f.net)
watch!(f::Blended, monitor) = watch!(f.net, monitor)
loss_scale(f::Blended, θ) = loss_scale(f.net, θ)
loss(f::Blended, θ) = loss(f.net, θ)
value_and_gradient!(g::Vector, f::Blended, θ) = value_and_gradient!(g, f.net, θ)
hessian!(H::Matrix, f::Blended, θ) = hessian!(H, f.net, θ)
hvp!(y::Vector, f::Blended, θ, v) = hvp!(y, f.net, θ, v)

# As in hvp!, with θ at rest while activations move: ȧ = f′ ḣ + (F − f)(h), and as much for the slopes on the way back.
function drift!(y, f::Blended, θ)
    net = f.net
    ws, layers, scale = net.crew.workers[1].workspace, net.layers, 1 / net.n_samples
    L = length(layers)
    fill!(y, 0)
    for block in net.blocks
        n = block.n
        second_order_pass!(ws, net, θ, block, mean_loss(net), scale)
        for (l, layer) in enumerate(layers)
            linear!(f.h[l], layer_input(ws, block, l), θ, layer, n)
            l > 1 ? linear_dot!(ws.Ḣ[l], ws.Ȧ[l-1], θ, layer, n) : fill!(ws.Ḣ[l], 0)
            hadamard!(ws.Ȧ[l], ws.D[l], ws.Ḣ[l], n, layer.width)
            factor = l == L ? net.output_factor : 1.0
            for j in 1:layer.width
                move!(unit_activation(layer, j), ws.Ȧ[l], f.h[l], factor, n, j)
            end
        end
        loss_dot!(net.objective, ws.Δ̇[L], ws, ws.Ȧ[L], block, scale)
        for l in L:-1:1
            for j in 1:layers[l].width
                chain_dot!(ws.Δ̇[l], ws.D[l], ws.S[l], ws.E[l], ws.Ḣ[l], j, n)
                for r in 1:n
                    ws.Δ̇[l][r, j] += f.h[l][r, j] * ws.E[l][r, j]
                end
            end
            accumulate!(y, ws.Δ̇[l], layer_input(ws, block, l), layers[l], n)
            l > 1 && accumulate_weights!(y, ws.Δ[l], ws.Ȧ[l-1], layers[l], n)
            l > 1 && pullback!(ws.Δ̇[l-1], ws.Δ̇[l], θ, layers[l], n)
        end
    end
    return y
end
move!(::Activation, Ȧ, h, factor, n, j) = (h[1:n, j] .= 0)
function move!(a::Blend, Ȧ, h, factor, n, j)
    for r in 1:n
        f, d, _ = derivatives(a.first, h[r, j])
        F, D, _ = derivatives(a.second, h[r, j])
        Ȧ[r, j] += factor * (F - f)
        h[r, j] = factor * (D - d)
    end
end

# Second derivatives with one by μ, for the Jacobians of Newton's method alone: what it converges to does not depend
# on them.
const BLEND_STEP = eps()^(1 / 3)
function central(f, family::Family)
    μ = family.μ
    above, below = f(place!(family, μ + BLEND_STEP)), f(place!(family, μ - BLEND_STEP))
    place!(family, μ)
    return (above - below) / 2BLEND_STEP
end
drift_hvp(f::Blended, θ, v) = central(at -> hvp(at.net, θ, v), f)
drift_slope(f::Blended, θ) = central(at -> drift!(similar(θ), at, θ), f)

"""
    family(net, other) -> Family

From `net` at μ = 0 to `other` at μ = 1: between their activations if these differ, else between their losses.
"""
function family(net::AbstractNet, other::AbstractNet)
    n_params(net) == n_params(other) || throw(DimensionMismatch("the two nets have $(n_params(net)) and " *
                                                                "$(n_params(other)) parameters"))
    return Between(in_double(net), in_double(other), 0.0)
end
function family(net::Net, other::Net)
    shape(l) = (l.fan_in, l.width, l.bias)
    shape.(net.layers) == shape.(other.layers) || throw(ArgumentError("the two nets have layers of different shapes"))
    alike(l, m) = all(unit_activation(l, j) === unit_activation(m, j) for j in 1:l.width)
    all(alike(l, m) for (l, m) in zip(net.layers, other.layers)) &&
        return Between(in_double(net), in_double(other), 0.0)
    same_loss(net, other) || throw(ArgumentError("the two nets differ in their activations and in data or settings: " *
                                                 "follow one after the other"))
    return Blended(in_double(net), in_double(other), 0.0)
end
in_double(net::AbstractNet{Float64}) = net
in_double(net::AbstractNet) = throw(ArgumentError("this works in Float64 alone: make the net with dtype=\"float64\""))
in_double(net::Net) = with_number_type(Float64, net)             # a copy: the caller's buffers stay as they are
function same_loss(a::Net, b::Net)
    R, S = a.regulariser, b.regulariser
    (R.l2, R.maxnorm, R.pairs, a.output_factor, a.objective, a.n_samples) ==
    (S.l2, S.maxnorm, S.pairs, b.output_factor, b.objective, b.n_samples) || return false
    return all(x.X == y.X && x.Y == y.Y && x.w == y.w for (x, y) in zip(a.blocks, b.blocks))
end

"The net with its l2 as the parameter."
function decay(net::Net)
    copy, R = in_double(net), net.regulariser
    copy.regulariser = Regulariser{Float64}(0.0, Float64(R.maxnorm), [(i, j, Float64(λ)) for (i, j, λ) in R.pairs])
    return Decay(copy, Float64(R.l2))
end
