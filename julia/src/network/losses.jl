"""
    Loss

What one sample contributes: [`MeanSquared`](@ref), [`NegativeLogLikelihood`](@ref), a user's [`CustomLoss`](@ref), or,
of all samples together, [`Correlation`](@ref). For one block of samples, with the output layer's activations in
`ws.A[end]`, a loss has

- `block_loss(loss, ws, block)`: Σᵢ wᵢ ℓᵢ;
- `block_loss!(loss, E, ws, block, scale)`: that, and `scale` times its derivative by the outputs in `E`;
- `loss_dot!(loss, Ė, ws, Ȧ, block, scale)`: the derivative of `E` in the direction `Ȧ` of the outputs.
"""
abstract type Loss end

"Losses by name; their summaries are formulas."
const LOSSES = Registry("loss")

"ℓ = ‖f − y‖², summed over outputs."
struct MeanSquared <: Loss end
register!(LOSSES, "mse", MeanSquared(), "|f - y|^2")

"""
ℓ = −Σₒ yₒ log softmax(h)ₒ with labels or probabilities y. The output layer's activations are the logits h, which the
derivatives replace by the probabilities: outputs are probabilities with the activation softmax, logits with identity.
"""
struct NegativeLogLikelihood <: Loss end
register!(LOSSES, "nll", NegativeLogLikelihood(), "-sum_o y_o log f_o, for a softmax output or logits")

"""
    CustomLoss(f)

A user's function: ℓ = Σₒ f(outputₒ, targetₒ). Its derivatives by the output are found as those of a [`Custom`](@ref)
activation.
"""
struct CustomLoss{F,D} <: Loss
    f::F
    differentiation::D
end
CustomLoss(f) = CustomLoss(f, DIFFERENTIATION[])
Base.show(io::IO, loss::CustomLoss) = print(io, loss.f)

loss_by_name(loss::Loss) = loss
loss_by_name(f::Function) = CustomLoss(f)
loss_by_name(name::Union{Symbol,AbstractString}) = lookup(LOSSES, String(name)::String)
Base.show(io::IO, loss::Loss) = print(io, first(name for (name, known) in LOSSES if known === loss))

fits(::Loss, a::Activation) = a isa Softmax &&
    throw(ArgumentError("a softmax output needs loss = \"nll\""))
fits(::NegativeLogLikelihood, a::Activation) = a isa Union{Softmax,Identity} ||
    throw(ArgumentError("loss = \"nll\" needs an output layer with the activation softmax, or identity for logits, " *
                        "got $a"))

"The loss of a new net: one that keeps something of an evaluation is not shared."
own_loss(loss::Loss, ::Type, outputs::Int) = loss

"Before an evaluation at θ: what a loss has to know of all samples."
prepare!(::Loss, net, θ) = nothing
"What second derivatives have beside those of a sum over samples: to the lower triangle of H, to the product with v."
add_outer_terms!(H, ::Loss, net, θ, offset::Int=0) = H
add_outer_product!(y, ::Loss, net, θ, v) = y

"Targets as an O×N matrix."
target_matrix(::Loss, ::Type{T}, target::AbstractMatrix, outputs) where {T} = target
target_matrix(::Loss, ::Type{T}, target::AbstractVector, outputs) where {T} = reshape(target, 1, :)
function target_matrix(::NegativeLogLikelihood, ::Type{T}, labels::AbstractVector, outputs) where {T}
    all(y -> y isa Integer || isinteger(y), labels) && all(y -> 1 <= y <= outputs, labels) ||
        throw(ArgumentError("labels must be whole numbers from 1 to $outputs"))
    Y = zeros(T, outputs, length(labels))
    for (i, y) in enumerate(labels)
        Y[Int(y), i] = 1
    end
    return Y
end
function target_matrix(::NegativeLogLikelihood, ::Type{T}, P::AbstractMatrix, outputs) where {T}
    all(p -> p >= 0, P) || throw(ArgumentError("probabilities must not be negative"))
    return P
end

function block_loss(::MeanSquared, ws::Workspace{T}, block::Block{T}) where {T}
    F, Y, w = last(ws.A), block.Y, block.w
    s = zero(T)
    @inbounds for o in 1:size(Y, 2)
        @simd for r in 1:block.n
            d = F[r, o] - Y[r, o]
            s = muladd(w[r] * d, d, s)
        end
    end
    return s
end

function block_loss!(::MeanSquared, E::Matrix{T}, ws::Workspace{T}, block::Block{T}, scale::T) where {T}
    F, Y, w = last(ws.A), block.Y, block.w
    c = 2scale
    s = zero(T)
    @inbounds for o in 1:size(Y, 2)
        @simd for r in 1:block.n
            d = F[r, o] - Y[r, o]
            e = w[r] * d
            s = muladd(e, d, s)
            E[r, o] = c * e
        end
    end
    return s
end

function loss_dot!(::MeanSquared, Ė::Matrix{T}, ws::Workspace{T}, Ȧ::Matrix{T}, block::Block{T}, scale::T) where {T}
    c, w = 2scale, block.w
    @inbounds for o in 1:size(Ė, 2)
        @lanes r block.n Ė[r, o] = c * w[r] * Ȧ[r, o]
    end
    return Ė
end

"The loss of one output, and its two derivatives by it."
@inline sample_loss(loss::CustomLoss, f, y) = derivatives(Custom(Base.Fix2(loss.f, y), loss.differentiation), f)

function block_loss(loss::CustomLoss, ws::Workspace{T}, block::Block{T}) where {T}
    F, Y, w = last(ws.A), block.Y, block.w
    s = zero(T)
    @inbounds for o in 1:size(Y, 2), r in 1:block.n
        s += w[r] * T(loss.f(F[r, o], Y[r, o]))
    end
    return s
end

function block_loss!(loss::CustomLoss, E::Matrix{T}, ws::Workspace{T}, block::Block{T}, scale::T) where {T}
    F, Y, w = last(ws.A), block.Y, block.w
    s = zero(T)
    @inbounds for o in 1:size(Y, 2), r in 1:block.n
        value, slope, _ = sample_loss(loss, F[r, o], Y[r, o])
        s += w[r] * T(value)
        E[r, o] = scale * w[r] * T(slope)
    end
    return s
end

function loss_dot!(loss::CustomLoss, Ė::Matrix{T}, ws::Workspace{T}, Ȧ::Matrix{T}, block::Block{T}, scale::T) where {T}
    F, Y, w = last(ws.A), block.Y, block.w
    @inbounds for o in 1:size(Y, 2), r in 1:block.n
        _, _, curvature = sample_loss(loss, F[r, o], Y[r, o])
        Ė[r, o] = scale * w[r] * T(curvature) * Ȧ[r, o]
    end
    return Ė
end

# Row by row the largest logit m, the number of the unit that has it, and Σ exp(hₒ − m) over the other units: what is
# small where a sample is sure is computed as itself, never as a difference from one.
const MAXIMUM, OTHERS, SUM_OF_TARGETS, LARGEST, SHIFT = 1, 2, 3, 4, 5     # columns of ws.row

"Which logit is counted from matters for accuracy only, so that numbers that are not known exactly may choose."
@inline exceeds(x, y) = x > y

function log_sum_exp!(ws::Workspace{T}, n::Int, outputs::Int) where {T}
    H, R = last(ws.A), ws.row
    @inbounds @lanes r n begin
        R[r, MAXIMUM] = H[r, 1]
        R[r, LARGEST] = one(T)
        R[r, OTHERS] = zero(T)
    end
    @inbounds for o in 2:outputs
        unit = T(o)
        @lanes r n begin
            larger = exceeds(H[r, o], R[r, MAXIMUM])
            R[r, LARGEST] = ifelse(larger, unit, R[r, LARGEST])
            R[r, MAXIMUM] = ifelse(larger, H[r, o], R[r, MAXIMUM])
        end
    end
    @inbounds for o in 1:outputs
        unit = T(o)
        @lanes r n R[r, OTHERS] += ifelse(R[r, LARGEST] == unit, zero(T), fast_exp(H[r, o] - R[r, MAXIMUM]))
    end
    return nothing
end

"Replace logits by probabilities; `log_sum_exp!` came before."
function softmax!(ws::Workspace{T}, n::Int, outputs::Int) where {T}
    H, R = last(ws.A), ws.row
    @inbounds for o in 1:outputs
        @lanes r n H[r, o] = fast_exp(H[r, o] - R[r, MAXIMUM]) / (1 + R[r, OTHERS])
    end
    return nothing
end

function block_loss(::NegativeLogLikelihood, ws::Workspace{T}, block::Block{T}) where {T}
    H, Y, R, w, n = last(ws.A), block.Y, ws.row, block.w, block.n
    log_sum_exp!(ws, n, size(Y, 2))
    @inbounds for r in 1:n
        R[r, SHIFT] = log1p(R[r, OTHERS])
    end
    s = zero(T)
    @inbounds for o in 1:size(Y, 2)
        @simd for r in 1:n
            s = muladd(w[r] * Y[r, o], R[r, SHIFT] + (R[r, MAXIMUM] - H[r, o]), s)
        end
    end
    return s
end

# The derivative by hₒ is Σy pₒ − yₒ. For the largest unit p = 1 − q with q = others/(1 + others).
function block_loss!(loss::NegativeLogLikelihood, E::Matrix{T}, ws::Workspace{T}, block::Block{T}, scale::T) where {T}
    P, Y, R, w, n = last(ws.A), block.Y, ws.row, block.w, block.n
    s = block_loss(loss, ws, block)
    softmax!(ws, n, size(Y, 2))
    @inbounds @lanes r n R[r, SUM_OF_TARGETS] = zero(T)
    @inbounds for o in 1:size(Y, 2)
        @lanes r n R[r, SUM_OF_TARGETS] += Y[r, o]     # one, unless a user's probabilities do not sum to one
    end
    @inbounds for o in 1:size(Y, 2)
        unit = T(o)
        @lanes r n begin
            total, q = R[r, SUM_OF_TARGETS], R[r, OTHERS] / (1 + R[r, OTHERS])
            sure = (total - Y[r, o]) - total * q
            E[r, o] = scale * w[r] * ifelse(R[r, LARGEST] == unit, sure, total * P[r, o] - Y[r, o])
        end
    end
    return s
end

# Σy pₒ (Ȧₒ − Σ p Ȧ), with directions counted from that of the largest unit.
function loss_dot!(::NegativeLogLikelihood, Ė::Matrix{T}, ws::Workspace{T}, Ȧ::Matrix{T}, block::Block{T},
                   scale::T) where {T}
    P, R, w, n = last(ws.A), ws.row, block.w, block.n
    outputs = size(block.Y, 2)           # matrices of the workspace may be wider
    @inbounds for o in 1:outputs
        unit = T(o)
        @lanes r n R[r, MAXIMUM] = ifelse(R[r, LARGEST] == unit, Ȧ[r, o], R[r, MAXIMUM])
    end
    @inbounds @lanes r n R[r, SHIFT] = zero(T)
    @inbounds for o in 1:outputs
        @lanes r n R[r, SHIFT] = muladd(P[r, o], Ȧ[r, o] - R[r, MAXIMUM], R[r, SHIFT])
    end
    @inbounds for o in 1:outputs
        @lanes r n Ė[r, o] = scale * w[r] * R[r, SUM_OF_TARGETS] * P[r, o] * ((Ȧ[r, o] - R[r, MAXIMUM]) - R[r, SHIFT])
    end
    return Ė
end

"Outputs as users see them."
finish_outputs!(::Activation, ws, n, outputs) = nothing
function finish_outputs!(::Softmax, ws, n, outputs)
    log_sum_exp!(ws, n, outputs)
    softmax!(ws, n, outputs)
end
