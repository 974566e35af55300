# Units that depend on one another: what becomes of hidden units that merge while their outgoing weights diverge.

"""
    Derivative(of, order = 1, ε = 0)

The activation of a unit that is not alone. It forms a chain with unit `of` of its layer, whose activation σ it shares.
With the pre-activations h of unit `of`, s of the unit of order 1 and k of that of order 2, the chain's outputs are

- order 0, unit `of`: σ(h)
- order 1: s σ′(h)
- order 2: k σ′(h) + s²/2 σ″(h)

the coefficients of σ(h + s ε + k ε²) in powers of ε: the limit of two or three units that draw together. A pair has an
`ε` > 0, too: (σ(h + εs) + σ(h − εs))/2 and (σ(h + εs) − σ(h − εs))/2ε, which are two ordinary units in other
parameters. With unit `of` a [`Tail`](@ref) of α + β(exp(x) + β₂ exp(2x) + …) the output of order 1 is s exp(h) + β₂
exp(2h): what two units tend to that draw together on their way out, as their outgoing weights grow so fast that the
second term remains.
"""
struct Derivative <: Activation
    of::Int
    order::Int
    ε::Float64
end
Derivative(of::Integer, order::Integer=1, ε::Real=0) = Derivative(Int(of), Int(order), Float64(ε))
Base.show(io::IO, a::Derivative) = print(io, "Derivative(", a.of, ", ", a.order, ", ", a.ε, ")")

"""
    Tail(f, ε = 0)

exp, as what becomes of a unit with the activation f (tanh, sigmoid, softplus or g) whose bias goes to −∞ while its
outgoing weights grow: f(x) ≈ α + β exp(γx). With `ε` > 0 it is (f((x + 2 log ε)/γ) − α)/(βε²), a unit of f in other
parameters.
"""
struct Tail{F<:Activation} <: Activation
    f::F
    ε::Float64
end
Tail(f::Activation, ε::Real=0) =
    !has_tail(f) ? throw(ArgumentError("$f has no exponential tail; $(join(names_where(has_tail), ", ")) have")) :
    0 <= ε < Inf ? Tail{typeof(f)}(f, Float64(ε)) : throw(ArgumentError("a Tail has ε = $ε; 0 or more is possible"))
Base.show(io::IO, a::Tail) = print(io, "Tail(", a.f, ", ", a.ε, ")")

has_tail(::Activation) = false
has_tail(::Union{Tanh,Sigmoid,Softplus,GFunction}) = true
"f(x) = α + β exp(γx) + … for x → −∞"
tail(::Tanh) = (-1, 2, 2)
tail(::Union{Sigmoid,Softplus,GFunction}) = (0, 1, 1)

"f(x/γ) = α + β (exp(x) + β₂ exp(2x) + β₃ exp(3x) + …) for x → −∞: β₂ and β₃"
next_terms(::Union{Tanh,Sigmoid}) = (-1.0, 1.0)
next_terms(::Union{Softplus,GFunction}) = (-1 / 2, 1 / 3)

"The activation that is f, but for its end at −∞ and its scale, with α = 0 and β = γ = 1."
from_zero(f::Activation) = f
from_zero(::Tanh) = sigmoid                  # (tanh(x/2) + 1)/2

@inline function derivatives(a::Tail, x)
    a.ε == 0 && return derivatives(exp_, x)
    η = a.ε^2
    f, d, s = derivatives(from_zero(a.f), x + log(η))
    return (f / η, d / η, s / η)
end

"""
    PerUnit(activations)

One activation for each unit of a layer.
"""
struct PerUnit <: Activation
    activations::Vector{Activation}
end
Base.show(io::IO, a::PerUnit) = print(io, "(", join(a.activations, ", "), ")")

"""
    Chain(activation, units, ε)

Units of a layer, by their order; see [`Derivative`](@ref). Mutable, so that passing it on does not allocate.
"""
mutable struct Chain
    activation::Activation
    units::Vector{Int}
    ε::Float64
end

find_chains(::Activation) = Chain[]
function find_chains(a::PerUnit)
    chains = Chain[]
    for (i, f) in enumerate(a.activations)
        members = findall(g -> g isa Derivative && g.of == i, a.activations)
        isempty(members) && continue
        f isa Union{Derivative,Relu,Selu,Softmax,Sharp,Inside} &&
            throw(ArgumentError("unit $i has the activation $f; a Derivative needs a unit with a smooth one of its " *
                                "own"))
        sort!(members; by=j -> a.activations[j].order)
        orders, ε = Int[a.activations[j].order for j in members], (a.activations[members[1]]::Derivative).ε
        orders == 1:length(orders) && length(orders) <= 2 ||
            throw(ArgumentError("unit $i has Derivatives of orders $orders; 1, or 1 and 2, are possible"))
        0 <= ε < Inf && (ε == 0 || length(orders) == 1) && all(a.activations[j].ε == ε for j in members) ||
            throw(ArgumentError("a Derivative of unit $i has ε = $ε; 0, or for a pair a positive number, is possible"))
        f isa Tail && (ε > 0 || f.ε > 0 || length(orders) > 1) &&
            throw(ArgumentError("two tails merge at infinity, without a distance, and three do not"))
        push!(chains, Chain(f, [i; members], ε))
    end
    lost = findfirst(g -> g isa Derivative && !any(c -> g.of == c.units[1], chains), a.activations)
    lost === nothing ||
        throw(ArgumentError("unit $lost is the Derivative of unit $(a.activations[lost].of), which is not there"))
    return chains
end
function in_chain(chains::Vector{Chain}, j::Int)
    for chain in chains
        j in chain.units && return true
    end
    return false
end

"""
    ChainBuffers{T}

For one block and the r units of a chain: `first`, ∂aₚ/∂h_q in column (p − 1)r + q, `second`, ∂²aₚ/∂h_q∂h_t in column
((p − 1)r + q − 1)r + t, and `row`, r columns of scratch. Mutable, so that passing it on does not allocate.
"""
mutable struct ChainBuffers{T}
    first::Matrix{T}
    second::Matrix{T}
    row::Matrix{T}
end
function ChainBuffers{T}(chain::Chain, rows::Int) where {T}
    r = length(chain.units)
    return ChainBuffers{T}(zeros(T, rows, r^2), zeros(T, rows, r^3), zeros(T, rows, r))
end

# ---- what a chain computes -------------------------------------------------------------------------------------------

"f, f′, f″, f‴ and f⁗ at x"
@inline function four_derivatives(a::Activation, x)
    f, d, s = derivatives(a, Jet(x, one(x), zero(x)))
    return f.value, d.value, s.value, s.first, s.second
end

# Ten nodes of Gauss and Legendre on [-1, 1], those above zero. For |u| ≤ 1/8 the nearest pole of the activations here,
# that of sigmoid(4x) at πi/4, lies so far off that the error of the integrals below is 12.5^-20,
# far less than eps.
const SMALL_SHIFT = 0.125
const LEGENDRE = let β = [k / sqrt(4 * k^2 - 1.0) for k in 1:9], F = eigen(SymTridiagonal(zeros(10), β))
    Tuple((F.values[k], 2 * F.vectors[1, k]^2) for k in 6:10)
end

"""
    divided_differences(f, h, u) -> (d₀, d₁, d₂)

(f⁽ᵏ⁾(h + u) − f⁽ᵏ⁾(h − u))/2u for k = 0, 1, 2, without cancellation where u is small: ½∫ f⁽ᵏ⁺¹⁾(h + ut) dt over [-1,
1].
"""
@inline function divided_differences(f::Activation, h::T, u::T) where {T}
    if iszero(u)
        _, a, b, c, _ = four_derivatives(f, h)
        return a, b, c
    elseif abs(u) < SMALL_SHIFT && T <: BlasReal
        d0 = d1 = d2 = zero(T)
        for (t, w) in LEGENDRE
            shift, half = T(t) * u, T(w / 2)
            _, a, b, c, _ = four_derivatives(f, h + shift)
            _, α, β, γ, _ = four_derivatives(f, h - shift)
            d0, d1, d2 = muladd(half, a + α, d0), muladd(half, b + β, d1), muladd(half, c + γ, d2)
        end
        return d0, d1, d2
    end
    a, b, c = derivatives(f, h + u)
    α, β, γ = derivatives(f, h - u)
    return (a - α) / 2u, (b - β) / 2u, (c - γ) / 2u
end

"Outputs of a pair and their first and second derivatives by h and s, which are symmetric."
@inline function limit_pair(f::Activation, h::T, s::T) where {T}
    a, b, c, d, _ = four_derivatives(f, h)
    return (a, s * b), (b, zero(T), s * c, b), (c, zero(T), zero(T), s * d, c, zero(T))
end
@inline function limit_pair(f::Tail, h::T, s::T) where {T}
    e, t = exp(h), T(next_terms(f.f)[1]) * exp(2h)
    return (e, s * e + t), (e, zero(T), s * e + 2t, e), (e, zero(T), zero(T), s * e + 4t, e, zero(T))
end
@inline function shifted_pair(f::Activation, h::T, s::T, ε::T) where {T}
    a, b, c = derivatives(f, h + ε * s)
    α, β, γ = derivatives(f, h - ε * s)
    a, b, c = (a + α) / 2, (b + β) / 2, (c + γ) / 2
    d0, d1, d2 = divided_differences(f, h, ε * s)
    e = ε * ε
    return (a, s * d0), (b, e * s * d1, s * d1, b), (c, e * s * d2, e * c, s * d2, c, e * s * d2)
end

function compose!(f::Activation, A::Matrix{T}, b::ChainBuffers{T}, chain::Chain, n::Int, order::Int) where {T}
    length(chain.units) == 2 ? compose_pair!(f, A, b, chain.units[1], chain.units[2], T(chain.ε), n, order) :
    compose_triple!(f, A, b, chain.units[1], chain.units[2], chain.units[3], n, order)
    return nothing
end

function compose_pair!(f::Activation, A::Matrix{T}, b::ChainBuffers{T}, i::Int, j::Int, ε::T, n::Int,
                       order::Int) where {T}
    D, S = b.first, b.second
    @inbounds for r in 1:n
        out, first, second = iszero(ε) ? limit_pair(f, A[r, i], A[r, j]) : shifted_pair(f, A[r, i], A[r, j], ε)
        A[r, i], A[r, j] = out
        order >= 1 || continue
        D[r, 1], D[r, 2], D[r, 3], D[r, 4] = first
        order >= 2 || continue
        S[r, 1], S[r, 2], S[r, 4], S[r, 5], S[r, 6], S[r, 8] = second
        S[r, 3], S[r, 7] = second[2], second[5]
    end
    return nothing
end

function compose_triple!(f::Activation, A::Matrix{T}, b::ChainBuffers{T}, i::Int, j::Int, k::Int, n::Int,
                         order::Int) where {T}
    D, S = b.first, b.second
    @inbounds for r in 1:n
        s, t = A[r, j], A[r, k]
        f0, f1, f2, f3, f4 = four_derivatives(f, A[r, i])
        half = s * s / 2
        A[r, i], A[r, j], A[r, k] = f0, s * f1, t * f1 + half * f2
        order >= 1 || continue
        D[r, 1], D[r, 4], D[r, 5] = f1, s * f2, f1                     # the others are zero
        D[r, 7], D[r, 8], D[r, 9] = t * f2 + half * f3, s * f2, f1
        order >= 2 || continue
        S[r, 1] = f2
        S[r, 10], S[r, 11], S[r, 13] = s * f3, f2, f2
        S[r, 19], S[r, 20], S[r, 21] = t * f3 + half * f4, s * f3, f2
        S[r, 22], S[r, 23], S[r, 25] = s * f3, f2, f2
    end
    return nothing
end
