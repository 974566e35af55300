# BFGS with a dense inverse Hessian.

"""
    BFGS()

Broyden, Fletcher, Goldfarb & Shanno's quasi-Newton method (Nocedal & Wright, Numerical Optimization, 2006,
ch. 6) on the inverse Hessian, updated in place, with Hager and Zhang's line search; scaled by sᵀy/yᵀy at
the first update. Costs one gradient and 3P² operations per line search step and iteration; memory P².
"""
struct BFGS <: QuasiNewton end
name(::BFGS) = "BFGS"

mutable struct DenseInverse{T<:AbstractFloat}
    matrix::Matrix{T}       # its lower triangle
    image::Vector{T}        # matrix * y
    fresh::Bool             # a multiple of the identity
end
inverse_model(::BFGS, ::Type{T}, P::Int) where {T} = DenseInverse{T}(zeros(T, P, P), zeros(T, P), true)

function reset!(model::DenseInverse{T}) where {T}
    W = model.matrix
    fill!(W, zero(T))
    for i in 1:size(W, 1)
        W[i, i] = one(T)
    end
    model.fresh = true
    return model
end

apply_inverse!(d::Vector{T}, model::DenseInverse{T}, g::Vector{T}) where {T} = symmetric_product!(d, model.matrix, g)

"`y ← W v` from the lower triangle of `W`."
function symmetric_product!(y::Vector{T}, W::Matrix{T}, v::Vector{T}) where {T}
    P = length(v)
    for i in 1:P
        y[i] = zero(T)
    end
    @inbounds for j in 1:P
        vj = v[j]
        s = zero(T)
        @simd for i in j+1:P
            y[i] = muladd(vj, W[i, j], y[i])
            s = muladd(W[i, j], v[i], s)
        end
        y[j] += vj * W[j, j] + s
    end
    return y
end

"W ← (I − ρsyᵀ)W(I − ρysᵀ) + ρssᵀ with ρ = 1/sᵀy as one symmetric rank-2 update of the lower triangle."
function update!(model::DenseInverse{T}, s::Vector{T}, y::Vector{T}, sy::T) where {T}
    W, Wy = model.matrix, model.image
    P = length(s)
    if model.fresh
        scale = sy / dot_product(y, y)
        isfinite(scale) && scale > 0 || return false
        for i in 1:P
            W[i, i] = scale
        end
        model.fresh = false
    end
    symmetric_product!(Wy, W, y)
    factor = (1 + dot_product(y, Wy) / sy) / sy
    isfinite(factor) || return false
    # W + s uᵀ + u sᵀ with u = (factor/2) s − Wy/sy
    for i in 1:P
        Wy[i] = factor / 2 * s[i] - Wy[i] / sy
    end
    @inbounds for j in 1:P
        sj, uj = s[j], Wy[j]
        @simd for i in j:P
            W[i, j] += s[i] * uj + Wy[i] * sj
        end
    end
    return true
end
