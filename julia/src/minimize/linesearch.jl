# The line search of Hager & Zhang, SIAM J. Optim. 16 (2005) 170: strong in the face of rounding, because near
# a minimum it judges by slopes, which are accurate long after differences of losses have become noise.

"""
    Ray{T}(P)

The line x + αd: its workspace, the start (`loss`, `slope` at α = 0) and the last point evaluated
(`alpha`, `trial`, `trial_gradient`, `trial_loss`, `trial_slope`).
"""
Base.@kwdef mutable struct Ray{T<:AbstractFloat}
    direction::Vector{T}
    loss::T = 0
    slope::T = 0
    alpha::T = 0
    trial::Vector{T} = zero(direction)
    trial_gradient::Vector{T} = zero(direction)
    trial_loss::T = 0
    trial_slope::T = 0
end
Ray{T}(P::Int) where {T} = Ray{T}(direction=zeros(T, P))

"""
The state of a method with a line search: beside what every state has, its `ray`, the lowest values seen,
`lowest_loss` and `lowest_gnorm`, and `stalled`.
"""
abstract type LineSearchState{T} end

# δ, σ, θ, γ, ρ of the paper; ε there is the `slack` here.
const ARMIJO = 0.1
const CURVATURE = 0.9
const BISECTION = 0.5
const CONTRACTION = 0.66
const EXPANSION = 5.0
const LINESEARCH_EVALUATIONS = 60

"Evaluate at α; a loss or slope that is not finite counts as a very high loss. True if the conditions hold."
function probe!(ray::Ray{T}, objective::Objective{T}, x::Vector{T}, alpha::T, slack::T) where {T}
    d = ray.direction
    for i in eachindex(x)
        ray.trial[i] = x[i] + alpha * d[i]
    end
    ray.alpha = alpha
    ray.trial_loss = evaluate!(ray.trial_gradient, objective, ray.trial)
    ray.trial_slope = dot_product(ray.trial_gradient, d)
    if !(isfinite(ray.trial_loss) && isfinite(ray.trial_slope))
        ray.trial_loss = T(Inf)
        ray.trial_slope = T(NaN)
        return false
    end
    curvature = ray.trial_slope >= T(CURVATURE) * ray.slope
    wolfe = ray.trial_loss - ray.loss <= T(ARMIJO) * alpha * ray.slope
    approximate = (2 * T(ARMIJO) - 1) * ray.slope >= ray.trial_slope && ray.trial_loss <= ray.loss + slack
    return curvature && (wolfe || approximate)
end

"""
    line_search!(ray, objective, x, alpha, slack) -> Bool

From the first guess `alpha`, find a point that satisfies the Wolfe conditions, or the approximate ones with
the loss at most `slack` above the start; failing that, any lower loss. The point found is the ray's trial.
False if rounding allows none.
"""
function line_search!(ray::Ray{T}, objective::Objective{T}, x::Vector{T}, alpha::T, slack::T) where {T}
    ceiling = ray.loss + slack
    evaluations = 1
    probe!(ray, objective, x, alpha, slack) && return true
    # Bracket (B0 to B3 of the paper): `low` has negative slope and a loss below the ceiling.
    low, low_slope = zero(T), ray.slope
    while !(ray.trial_slope >= 0) && ray.trial_loss <= ceiling
        low, low_slope = ray.alpha, ray.trial_slope
        evaluations += 1
        next = T(EXPANSION) * ray.alpha
        # A loss without lower bound along the line: be content with the lowest point.
        isfinite(next) && evaluations < LINESEARCH_EVALUATIONS || return ray.trial_loss < ray.loss
        probe!(ray, objective, x, next, slack) && return true
    end
    high, high_slope = ray.alpha, ray.trial_slope
    while evaluations < LINESEARCH_EVALUATIONS
        width = high - low
        # Secant step where both slopes are known, else bisection (U3).
        guess = low + T(BISECTION) * width
        if high_slope >= 0
            secant = (low * high_slope - high * low_slope) / (high_slope - low_slope)
            low < secant < high && (guess = secant)
        end
        low < guess < high || break
        for repeat in 1:2
            evaluations += 1
            probe!(ray, objective, x, guess, slack) && return true
            side = narrow(ray, ceiling)
            previous, previous_slope = side < 0 ? (low, low_slope) : (high, high_slope)
            if side < 0
                low, low_slope = ray.alpha, ray.trial_slope
            else
                high, high_slope = ray.alpha, ray.trial_slope
            end
            # second secant, through the old and new end on the same side (S2 to S4)
            second = (previous * ray.trial_slope - ray.alpha * previous_slope) /
                     (ray.trial_slope - previous_slope)
            repeat == 1 && low < second < high || break
            guess = second
        end
        if high - low > T(CONTRACTION) * width
            middle = low + T(BISECTION) * (high - low)
            low < middle < high || break
            evaluations += 1
            probe!(ray, objective, x, middle, slack) && return true
            if narrow(ray, ceiling) < 0
                low, low_slope = ray.alpha, ray.trial_slope
            else
                high, high_slope = ray.alpha, ray.trial_slope
            end
        end
    end
    low > 0 || return false
    probe!(ray, objective, x, low, slack)
    return ray.trial_loss < ray.loss
end

"Which end of the bracket the last point replaces: −1 the low one, 1 the high one."
narrow(ray::Ray, ceiling) = ray.trial_slope < 0 && ray.trial_loss <= ceiling ? -1 : 1

"The full step x + d, if it lowers the gradient norm and does not raise the loss."
function calms!(ray::Ray{T}, objective::Objective{T}, state::LineSearchState{T}) where {T}
    probe!(ray, objective, state.x, one(T), zero(T))
    return calmer(ray.trial_loss, supnorm(ray.trial_gradient), state.lowest_loss, state.gnorm)
end

const DESCENTS = 200

"""
    descend!(ray, objective, x, gradient) -> Bool

Away from a saddle: from `x` along the ray's unit direction, of negative curvature, in steps that double as long as the
slope is downhill; the slope resolves what the loss does not yet. The trial is the lowest point; false if none is lower.
"""
function descend!(ray::Ray{T}, objective::Objective{T}, x::Vector{T}, gradient::Vector{T}) where {T}
    alpha = sqrt(eps(T)) * max(two_norm(x), one(T))
    best, lowest = zero(T), T(Inf)
    for attempt in 1:DESCENTS
        probe!(ray, objective, x, alpha, zero(T))
        isfinite(ray.trial_loss) && ray.trial_loss <= ray.loss || break
        ray.trial_loss < lowest && ((best, lowest) = (alpha, ray.trial_loss))
        ray.trial_slope < 0 && isfinite(2 * alpha) || break
        alpha *= 2
    end
    iszero(best) && return false
    ray.alpha == best || probe!(ray, objective, x, best, zero(T))
    return lowest < ray.loss || supnorm(ray.trial_gradient) > supnorm(gradient)
end

"""
    accepted!(state::LineSearchState) -> state

The ray's trial becomes the point. `stalled` counts steps in a row without a decrease that can be
resolved: at the end of quadratic convergence the last digit of the gradient goes up and down, and so does
the loss, whose fall after a rise is no progress.
"""
function accepted!(state::LineSearchState{T}) where {T}
    ray = state.ray
    gnorm = supnorm(ray.trial_gradient)
    progress = state.lowest_loss - ray.trial_loss > 4 * eps(T) * abs(state.loss) || gnorm < T(0.9) * state.lowest_gnorm
    state.stalled = progress ? 0 : state.stalled + 1
    accepted!(state, ray, ray.trial_loss, gnorm)
    state.lowest_loss = min(state.lowest_loss, state.loss)
    state.lowest_gnorm = min(state.lowest_gnorm, gnorm)
    return state
end
