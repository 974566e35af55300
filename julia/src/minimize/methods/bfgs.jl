# BFGS with a dense inverse Hessian.

"""
    BFGS()

Broyden, Fletcher, Goldfarb & Shanno's quasi-Newton method (Nocedal & Wright, Numerical Optimization, 2006,
ch. 6) on the inverse Hessian, updated in place, with Hager and Zhang's line search; scaled by sᵀy/yᵀy at
the first update. Costs one gradient per line search step, and 2P² operations per iteration in one pass over the matrix;
memory P².
"""
struct BFGS <: QuasiNewton end
method_name(::BFGS) = "BFGS"

"""
The lower triangle of W, but for the last update s uᵀ + u sᵀ, which is added when the next product passes over the
matrix.
"""
Base.@kwdef mutable struct DenseInverse{T<:AbstractFloat}
    matrix::Matrix{T}
    s::Vector{T} = zeros(T, size(matrix, 1))
    u::Vector{T} = zero(s)
    pending::Bool = false           # the update is not in the matrix yet
    image::Vector{T} = zero(s)      # W ∇L
    known::Bool = false             # it is that of the present gradient
    product::Vector{T} = zero(s)
    fresh::Bool = true              # W is a multiple of the identity
end
inverse_model(::BFGS, ::Type{T}, P::Int) where {T} = DenseInverse{T}(matrix=zeros(T, P, P))

function reset!(model::DenseInverse{T}) where {T}
    scale_identity!(model, one(T))
    model.pending = model.known = false
    model.fresh = true
    return model
end

function scale_identity!(model::DenseInverse{T}, scale::T) where {T}
    W = model.matrix
    fill!(W, zero(T))
    for i in 1:size(W, 1)
        W[i, i] = scale
    end
    return model
end

function apply_inverse!(d::Vector{T}, model::DenseInverse{T}, g::Vector{T}) where {T}
    model.known || product!(model.image, model, g)
    model.known = true
    return copyto!(d, model.image)
end

moved!(model::DenseInverse) = (model.known = false; nothing)

"`y ← W v`; the pending update enters the matrix on the way."
function product!(y::Vector{T}, model::DenseInverse{T}, v::Vector{T}) where {T}
    W, s, u = model.matrix, model.s, model.u
    P = length(v)
    fill!(y, zero(T))
    pending = model.pending
    @inbounds for j in 1:P
        vj, total = v[j], zero(T)
        if pending
            sj, uj = s[j], u[j]
            W[j, j] += 2 * (sj * uj)
            @simd for i in j+1:P
                w = muladd(u[i], sj, muladd(s[i], uj, W[i, j]))
                W[i, j] = w
                y[i] = muladd(vj, w, y[i])
                total = muladd(w, v[i], total)
            end
        else
            @simd for i in j+1:P
                y[i] = muladd(vj, W[i, j], y[i])
                total = muladd(W[i, j], v[i], total)
            end
        end
        y[j] += vj * W[j, j] + total
    end
    model.pending = false
    return y
end

"W ← (I − ρsyᵀ)W(I − ρysᵀ) + ρssᵀ with ρ = 1/sᵀy, and the new W ∇L, from one product W ∇L with the old W."
function update!(model::DenseInverse{T}, s::Vector{T}, y::Vector{T}, sy::T, g::Vector{T}) where {T}
    z, image, u = model.product, model.image, model.u
    model.known = false
    if model.fresh
        scale = sy / dot_product(y, y)
        isfinite(scale) && scale > 0 || return false
        scale_identity!(model, scale)
        for i in eachindex(g)
            image[i] = scale * (g[i] - y[i])
        end
        model.fresh = false
    end
    product!(z, model, g)
    yWy = zero(T)
    for i in eachindex(z)
        yWy += y[i] * (z[i] - image[i])
    end
    factor = (1 + yWy / sy) / sy
    isfinite(factor) || return false
    # W + s uᵀ + u sᵀ with u = (factor/2) s − Wy/sy
    for i in eachindex(u)
        u[i] = factor / 2 * s[i] - (z[i] - image[i]) / sy
        model.s[i] = s[i]
    end
    model.pending = true
    sg, ug = dot_product(s, g), dot_product(u, g)
    for i in eachindex(image)
        image[i] = z[i] + s[i] * ug + u[i] * sg
    end
    model.known = true
    return true
end

register!(MINIMIZE_METHODS, "BFGS", BFGS(), "quasi-Newton method with a dense inverse Hessian"; matrices=1,
          when="Hessians are expensive, gradients cheap")
