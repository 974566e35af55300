# What the quasi-Newton methods share: a model of the inverse Hessian, a line search, and when to give up.

"""
A minimizer that keeps a model `W` of the inverse Hessian, with

- `inverse_model(method, T, P)`;
- `reset!(model)`: forget everything;
- `apply_inverse!(d, model, g)`: `d ← W g`;
- `update!(model, s, y, sy, g)`: make `W y = s` for the step `s` and the change `y` of the gradient, now `g`, where
  `sy` = sᵀy is positive; false if rounding forbids it;
- `moved!(model)`: the gradient has changed without an update.
"""
abstract type QuasiNewton <: MinimizeMethod end

Base.@kwdef mutable struct QuasiNewtonState{T<:AbstractFloat,M} <: LineSearchState{T}
    x::Vector{T}
    gradient::Vector{T}
    loss::T
    gnorm::T
    lowest_loss::T = loss
    lowest_gnorm::T = gnorm
    ray::Ray{T} = Ray{T}(length(x))
    model::M
    change::Vector{T} = zero(x)     # y, the change of the gradient
    fresh::Bool = true              # the model has seen no step
    stalled::Int = 0                # iterations in a row without a resolvable decrease
end

function make_state(method::QuasiNewton, objective::Objective{T}, x0::Vector{T}) where {T}
    model = reset!(inverse_model(method, T, length(x0)))
    return QuasiNewtonState{T,typeof(model)}(; first_point(objective, x0)..., model=model)
end

function forget!(state::QuasiNewtonState)
    reset!(state.model)
    state.fresh = true
    return state
end

const STALLED_ITERATIONS = 20

function step!(state::QuasiNewtonState{T}, objective::Objective{T}, ::QuasiNewton) where {T}
    ray = state.ray
    direct!(state)
    ray.loss = state.loss
    slack = loss_noise(state.lowest_loss)
    alpha = state.fresh ? first_step(state) : one(T)
    found = ray.slope < 0 && isfinite(alpha) && alpha > 0 &&
            line_search!(ray, objective, state.x, alpha, slack) && !worse(ray.trial_loss, state.lowest_loss)
    if !found
        state.fresh && return Stop.roundoff
        forget!(state)
        return Stop.running
    end
    s, y = ray.direction, state.change
    for i in eachindex(s)
        y[i] = ray.trial_gradient[i] - state.gradient[i]
        s[i] = ray.trial[i] - state.x[i]
    end
    sy = dot_product(s, y)
    # s and y carry rounding errors of their own: a product near them says nothing about curvature.
    if sy > eps(T) * two_norm(s) * two_norm(y) && isfinite(sy) && update!(state.model, s, y, sy, ray.trial_gradient)
        state.fresh = false
    else
        moved!(state.model)
    end
    accepted!(state)
    return state.stalled >= STALLED_ITERATIONS ? Stop.roundoff : Stop.running
end

"Direction −W∇L and its slope; steepest descent after a reset where W has lost definiteness to rounding."
function direct!(state::QuasiNewtonState{T}) where {T}
    ray = state.ray
    for attempt in 1:2
        apply_inverse!(ray.direction, state.model, state.gradient)
        for i in eachindex(ray.direction)
            ray.direction[i] = -ray.direction[i]
        end
        ray.slope = dot_product(state.gradient, ray.direction)
        (ray.slope < 0 && isfinite(ray.slope)) && return state
        forget!(state)
    end
    return state
end

"First step along −∇L: 1 % of the largest parameter, or of the loss were it linear (Hager & Zhang, I0)."
function first_step(state::QuasiNewtonState{T}) where {T}
    size = supnorm(state.x)
    size > 0 && return T(0.01) * size / state.gnorm
    state.loss != 0 && return T(0.01) * abs(state.loss) / abs(state.ray.slope)
    return one(T)
end
