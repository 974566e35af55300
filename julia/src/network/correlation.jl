"""
    Correlation{T}(outputs)

L = Σₒ (1 − rₒ), with rₒ Pearson's correlation, over the weighted samples, of output and target o: indifferent to scale
and offset of the outputs. Not a mean over samples: [`prepare!`](@ref) looks at all of them before an evaluation. With
means and standard deviations by the weights w/W, W = Σw, and φ = (f − mean f)/s, η = (y − mean y)/s_y,

    1 − r = Σ w (η − φ)²/2W,      ∂r/∂fᵢ = wᵢ (ηᵢ − r φᵢ)/(W s),

and the second derivative along ḟ is, with m, a, b the weighted means of ḟ, φḟ and ηḟ,

    −Ė = −w (r (ḟ − m) + b φ + a η − 3 r a φ)/(W s²):

a diagonal part, which is treated as that of other losses, and products of sums over samples.

Minimizers add ½ Σₒ ℓₒ², ℓ = log(s hₒ), with `held` h = 1/s where they begin. It has the same critical points, of that
scale: ∇L vanishes along changes of the scale. ∂ℓ/∂fᵢ = wᵢ φᵢ/(W s), and the second derivative of ℓ along ḟ is
(v − m² − 2a²)/s², v the mean of ḟ².
"""
mutable struct Correlation{T} <: Loss
    share::T                # N/W
    mean::Vector{T}         # of each output,
    inverse::Vector{T}      # 1/s,
    target::Vector{T}       # mean and
    spread::Vector{T}       # 1/s_y of its target,
    left::Vector{T}         # 1 − r
    held::Vector{T}         # empty where the scale is left to itself
    first::Vector{T}        # gradients of the means m, a and b of f = ∂f/∂θ θ̇
    second::Vector{T}
    third::Vector{T}
    output::Int
    part::Int               # 1, 2 or 3: what is differentiated is that mean of `output`; 0: the loss
end
function Correlation{T}(outputs::Int) where {T}
    z() = zeros(T, outputs)
    return Correlation{T}(0, z(), z(), z(), z(), z(), T[], T[], T[], T[], 0, 0)
end
register!(LOSSES, "correlation", Correlation{Float64}(0),
          "1 - correlation of f_o and y_o over all samples, summed over o")
Base.show(io::IO, ::Correlation) = print(io, "correlation")
own_loss(::Correlation, ::Type{T}, outputs::Int) where {T} = Correlation{T}(outputs)

standardised(c::Correlation, f, o) = (f - c.mean[o]) * c.inverse[o]
standardised_target(c::Correlation, y, o) = (y - c.target[o]) * c.spread[o]
log_scale(c::Correlation{T}, o) where {T} = isempty(c.held) ? zero(T) : log(c.held[o] / c.inverse[o])

function block_loss(c::Correlation{T}, ws::Workspace{T}, block::Block{T}) where {T}
    F, Y, w = last(ws.A), block.Y, block.w
    s = zero(T)
    @inbounds for o in 1:size(Y, 2)
        ℓ = log_scale(c, o)
        @simd for r in 1:block.n
            s += w[r] * (abs2(standardised_target(c, Y[r, o], o) - standardised(c, F[r, o], o)) + ℓ^2)
        end
    end
    return s * c.share / 2
end

function block_loss!(c::Correlation{T}, E::Matrix{T}, ws::Workspace{T}, block::Block{T}, scale::T) where {T}
    F, Y, w = last(ws.A), block.Y, block.w
    c.part > 0 && return part_derivative!(c, E, F, block, scale)
    @inbounds for o in 1:size(Y, 2)
        k, ℓ = -scale * c.share * c.inverse[o], log_scale(c, o)
        @simd for r in 1:block.n
            φ = standardised(c, F[r, o], o)
            E[r, o] = k * w[r] * ((standardised_target(c, Y[r, o], o) - φ) + (c.left[o] - ℓ) * φ)
        end
    end
    return block_loss(c, ws, block)
end

function loss_dot!(c::Correlation{T}, Ė::Matrix{T}, ws::Workspace{T}, Ȧ::Matrix{T}, block::Block{T}, scale::T) where {T}
    w = block.w
    @inbounds for o in 1:size(block.Y, 2)
        k = scale * c.share * (1 - c.left[o] + log_scale(c, o)) * c.inverse[o]^2
        @simd for r in 1:block.n
            Ė[r, o] = k * w[r] * Ȧ[r, o]
        end
    end
    return Ė
end

"The derivative of the weighted mean of an output, of its product with φ or of that with η."
function part_derivative!(c::Correlation{T}, E::Matrix{T}, F::Matrix{T}, block::Block{T}, scale::T) where {T}
    o, k = c.output, scale * c.share
    fill!(E, zero(T))
    @inbounds for r in 1:block.n
        factor = c.part == 1 ? one(T) : c.part == 2 ? standardised(c, F[r, o], o) :
                 standardised_target(c, block.Y[r, o], o)
        E[r, o] = k * block.w[r] * factor
    end
    return zero(T)
end

"The loss as a mean over samples; an error if it is none."
function mean_loss(net)
    net.objective isa Correlation &&
        throw(ArgumentError("the loss \"correlation\" is no mean over samples, which is needed here"))
    return net.objective
end
