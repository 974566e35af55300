"""
    Regulariser(layers, l2, maxnorm, merge)

The part R(θ) of the loss that does not depend on data:

- `l2` λ: (λ/2)‖θ‖²
- `maxnorm` c: (1/3) max(0, ‖θ‖²/(2P) − c)³
- `merge` = (layer, i, j, λ), or several of these: (λ/2) times the squared distance between the incoming weights
  and biases of units i and j of a layer (all counted from 1)
"""
struct Regulariser{T}
    l2::T
    maxnorm::T
    pairs::Vector{Tuple{Int,Int,T}}       # two parameters that are to agree, and λ
end

function Regulariser{T}(layers::Vector{Layer}, l2::Real, maxnorm::Real, merge) where {T}
    0 <= l2 < Inf || throw(ArgumentError("l2 is $l2; finite and not negative is needed"))
    maxnorm >= 0 || throw(ArgumentError("maxnorm is $maxnorm; a number that is not negative is needed"))
    pairs = Tuple{Int,Int,T}[]
    # In a call of its own: code that depends on what kind of thing a user gave would be compiled again after packages
    # are loaded.
    merge === nothing || Base.invokelatest(add_pairs!, pairs, layers, merge)
    return Regulariser{T}(T(l2), T(maxnorm), pairs)
end

function add_pairs!(pairs::Vector{Tuple{Int,Int,T}}, layers::Vector{Layer}, merge) where {T}
    for (l, i, j, λ) in (merge isa Tuple{Integer,Integer,Integer,Real} ? (merge,) : merge)
        1 <= l <= length(layers) || throw(ArgumentError("merge names layer $l of $(length(layers))"))
        layer = layers[l]
        1 <= i <= layer.width && 1 <= j <= layer.width && i != j ||
            throw(ArgumentError("merge names units $i and $j of layer $l, which has $(layer.width)"))
        0 <= λ < Inf || throw(ArgumentError("merge has λ = $λ; finite and not negative is needed"))
        for k in 1:layer.fan_in
            push!(pairs, (layer.offset + (i - 1) * layer.fan_in + k, layer.offset + (j - 1) * layer.fan_in + k, T(λ)))
        end
        layer.bias && push!(pairs, (bias_offset(layer) + i, bias_offset(layer) + j, T(λ)))
    end
    return pairs
end

function squares(θ::Vector{T}) where {T}
    s = zero(T)
    @inbounds @simd for i in eachindex(θ)
        s = muladd(θ[i], θ[i], s)
    end
    return s
end

"Whether there is something to add. What is not known exactly may be."
may_be_positive(x) = x > 0

"How far ‖θ‖²/(2P) exceeds `maxnorm`, or zero."
excess(R::Regulariser{T}, θ) where {T} =
    isfinite(R.maxnorm) ? max(zero(T), squares(θ) / (2 * length(θ)) - R.maxnorm) : zero(T)

"R(θ)"
function penalty(R::Regulariser{T}, θ::Vector{T}) where {T}
    s = excess(R, θ)^3 / 3
    R.l2 > 0 && (s += R.l2 * squares(θ) / 2)
    for (i, j, λ) in R.pairs
        s += λ * abs2(θ[i] - θ[j]) / 2
    end
    return s
end

"g += ∇R"
function add_penalty_gradient!(g::Vector{T}, R::Regulariser{T}, θ::Vector{T}) where {T}
    c = R.l2 + excess(R, θ)^2 / length(θ)
    if may_be_positive(c)
        @inbounds @simd for i in eachindex(θ)
            g[i] = muladd(c, θ[i], g[i])
        end
    end
    for (i, j, λ) in R.pairs
        d = λ * (θ[i] - θ[j])
        g[i] += d
        g[j] -= d
    end
    return g
end

"y += ∇²R v"
function add_penalty_hvp!(y::Vector{T}, R::Regulariser{T}, θ::Vector{T}, v::Vector{T}) where {T}
    u, P = excess(R, θ), length(θ)
    c = R.l2 + u^2 / P
    if may_be_positive(c) || may_be_positive(u)
        s = zero(T)
        @inbounds @simd for i in eachindex(θ)
            s = muladd(θ[i], v[i], s)
        end
        s *= 2u / T(P)^2
        @inbounds @simd for i in eachindex(θ)
            y[i] += c * v[i] + s * θ[i]
        end
    end
    for (i, j, λ) in R.pairs
        d = λ * (v[i] - v[j])
        y[i] += d
        y[j] -= d
    end
    return y
end

"Lower triangle of H += ∇²R"
add_penalty_hessian!(H, R, θ) = add_penalty_block!(H, R, θ, 0)

"Lower triangle of H += the block of ∇²R for the parameters from offset + 1 on"
function add_penalty_block!(H::Matrix{T}, R::Regulariser{T}, θ::Vector{T}, offset::Int) where {T}
    u, P, n = excess(R, θ), length(θ), size(H, 1)
    c, s = R.l2 + u^2 / P, 2u / T(P)^2
    @inbounds for j in 1:n
        H[j, j] += c
        may_be_positive(u) && for i in j:n
            H[i, j] = muladd(s * θ[offset+i], θ[offset+j], H[i, j])
        end
    end
    for (i, j, λ) in R.pairs
        i, j = i - offset, j - offset
        1 <= i <= n && 1 <= j <= n || continue
        H[i, i] += λ
        H[j, j] += λ
        H[max(i, j), min(i, j)] -= λ
    end
    return H
end
