# Whether a trial point is taken, for all minimizers: by the loss as long as it can be told from rounding, by the
# gradient norm from there on.

"""
    loss_noise(loss)

How much rounding may have changed a loss. A fit with tiny residuals carries more noise than eps·|L|, since a
residual is the difference of larger numbers: with targets of order one δL ≈ 2√L δr and δr ≈ eps. Never
taken for more than 1/1000 of the loss.
"""
function loss_noise(loss::T) where {T<:AbstractFloat}
    size = abs(loss)
    return max(cbrt(eps(T))^2 * size, min(2 * eps(T) * sqrt(size), size / 1000))
end

"""
How much rounding may have changed a loss: that of the sum over samples, and that of the residuals, since a mean square
L has residuals √L that carry eps. Sharper than [`loss_noise`](@ref), which line searches need.
"""
loss_rounding(loss::T) where {T<:AbstractFloat} = 32 * eps(T) * abs(loss) + 4 * eps(T) * sqrt(abs(loss))

"Is the loss `a` higher than `b` by more than rounding can explain?"
worse(a::T, b::T) where {T<:AbstractFloat} = !(a <= b + loss_noise(b))

"Does a trial have a gradient norm below `bound`, and a loss that is not above `loss` but for rounding?"
calmer(trial_loss::T, trial_gnorm::T, loss::T, bound::T) where {T<:AbstractFloat} =
    trial_gnorm < bound && !worse(trial_loss, loss)

"Does a trial with a finite gradient have a loss below `loss`?"
lower(trial_loss::T, trial_gnorm::T, loss::T) where {T<:AbstractFloat} = trial_loss < loss && isfinite(trial_gnorm)

"""
    StepQuality

How good a trial step is that a quadratic model of the loss proposes: `ratio`, the actual decrease over the predicted
one, −Inf where the trial is not finite; `resolved`, whether the predicted decrease is more than rounding, so that the
ratio means something; `calmer`, whether the gradient norm falls by 1 % at least and the loss does not rise.
"""
struct StepQuality{T<:AbstractFloat}
    ratio::T
    resolved::Bool
    calmer::Bool
end

"""
    step_quality(trial_loss, trial_gnorm, loss, gnorm, predicted; from = loss) -> StepQuality

Of a step away from a point with `loss` and `gnorm`; the model predicts a decrease by `predicted` below the loss `from`.
"""
function step_quality(trial_loss::T, trial_gnorm::T, loss::T, gnorm::T, predicted::T;
                      from::T=loss) where {T<:AbstractFloat}
    finite = isfinite(trial_loss) && isfinite(trial_gnorm)
    ratio = finite ? (from - trial_loss) / predicted : T(-Inf)
    return StepQuality{T}(ratio, predicted > 16 * eps(T) * abs(from),
                          finite && calmer(trial_loss, trial_gnorm, loss, T(0.99) * gnorm))
end

"Is the step taken: a decrease by more than `least` of the predicted one, or where that is unresolved a calmer point?"
is_good(q::StepQuality{T}, least::T) where {T} = q.resolved ? q.ratio > least : q.calmer

"""
    accepted!(state, from, loss, gnorm) -> state

The trial of `from`, which is the state or its ray, becomes the point. What else a method notes of a step that was
taken is in its own `accepted!`.
"""
function accepted!(state, from, loss::T, gnorm::T) where {T<:AbstractFloat}
    state.x, from.trial = from.trial, state.x
    state.gradient, from.trial_gradient = from.trial_gradient, state.gradient
    state.loss, state.gnorm = loss, gnorm
    return state
end
