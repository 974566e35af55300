"""
    Loss

What one sample contributes: [`MeanSquared`](@ref) or [`NegativeLogLikelihood`](@ref). For one block of samples, with
the output layer's activations in `ws.A[end]`, a loss has

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
derivatives replace by the probabilities.
"""
struct NegativeLogLikelihood <: Loss end
register!(LOSSES, "nll", NegativeLogLikelihood(), "-sum_o y_o log f_o, for a softmax output")

loss_by_name(loss::Loss) = loss
loss_by_name(name::Union{Symbol,AbstractString}) = lookup(LOSSES, String(name))
Base.show(io::IO, loss::Loss) = print(io, first(name for (name, known) in LOSSES if known === loss))

fits(::MeanSquared, a::Activation) = a isa Softmax &&
    throw(ArgumentError("a softmax output needs loss = \"nll\""))
fits(::NegativeLogLikelihood, a::Activation) = a isa Softmax ||
    throw(ArgumentError("loss = \"nll\" needs an output layer with the activation softmax, got $a"))

"Targets as an O×N matrix."
target_matrix(::Loss, ::Type{T}, target::AbstractMatrix, outputs) where {T} = target
target_matrix(::MeanSquared, ::Type{T}, target::AbstractVector, outputs) where {T} = reshape(target, 1, :)
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

# Row by row the largest logit m, the number of the unit that has it, and Σ exp(hₒ − m) over the other units: what is small
# where a sample is sure is computed as itself, never as a difference from one.
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
function loss_dot!(::NegativeLogLikelihood, Ė::Matrix{T}, ws::Workspace{T}, Ȧ::Matrix{T}, block::Block{T}, scale::T) where {T}
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
