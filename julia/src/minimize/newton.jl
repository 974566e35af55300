# Newton's method with a line search.

"""
    Newton()

Newton's method with Hager and Zhang's line search. Where the Hessian is positive definite, a Cholesky factorisation gives
the step; where it is not, its curvatures are reflected (see [`ReflectedFactor`](@ref)), so that the step descends, away
from saddles too; from a saddle itself it leaves along a direction of negative curvature. One Hessian and P³/3 operations
per iteration (5P³/3 where indefinite); memory: two P×P matrices. In flat valleys use [`NewtonTrustRegion`](@ref): a Newton
step there is longer than its model is good.
"""
struct Newton <: MinimizeMethod end
name(::Newton) = "Newton"

mutable struct NewtonState{T<:AbstractFloat}
    x::Vector{T}
    gradient::Vector{T}
    loss::T
    gnorm::T
    lowest_loss::T
    lowest_gnorm::T
    hessian::Matrix{T}
    solver::ShiftedSolver{T}        # its matrix holds the Cholesky factor where there is one
    reflected::ReflectedFactor{T}
    ray::Ray{T}
    fraction::T                     # of the full step that the last line search took
    modelled::Bool                  # `hessian` is that of `x`
    definite::Bool
    stalled::Int
end

function initial_state(::Newton, objective::Objective{T}, x0::Vector{T}) where {T}
    P = length(x0)
    gradient = zeros(T, P)
    loss = evaluate!(gradient, objective, x0)
    gnorm = supnorm(gradient)
    return NewtonState{T}(copy(x0), gradient, loss, gnorm, loss, gnorm, zeros(T, P, P), ShiftedSolver{T}(P),
                          ReflectedFactor{T}(P), Ray{T}(P), one(T), false, false, 0)
end

const NEWTON_STALLED = 6
const LONGEST_STEP = 1000       # relative to the parameters

function iterate!(state::NewtonState{T}, objective::Objective{T}, ::Newton) where {T}
    model!(state, objective) || return Stop.diverged
    ray = state.ray
    slack = loss_noise(state.lowest_loss)
    ray.loss = state.loss
    direct!(state)
    if state.definite && !isfinite(ray.slope)      # curvatures that underflow
        state.definite = false
        reduce_model!(state)
        direct!(state)
    end
    # Where full steps are too long, in a valley that bends, the next one will be too.
    guess = min(10 * state.fraction, one(T))
    found = ray.slope < 0 && isfinite(ray.slope) && line_search!(ray, objective, state.x, guess, slack)
    state.fraction = found ? ray.alpha : one(T)
    # Rounding hides the slopes too: the full step, if it lowers the gradient norm.
    found || !state.definite || (found = calms!(ray, objective, state))
    if !found && !state.definite
        escape_direction!(state) && (found = descend!(ray, objective, state.x, state.gradient))
    end
    found && !worse(ray.trial_loss, state.lowest_loss) || return Stop.roundoff
    trial_gnorm = supnorm(ray.trial_gradient)
    # At the end of quadratic convergence the last digit of the gradient goes up and down.
    progress = state.loss - ray.trial_loss > 4 * eps(T) * abs(state.loss) || trial_gnorm < T(0.9) * state.lowest_gnorm
    state.stalled = progress ? 0 : state.stalled + 1
    state.x, ray.trial = ray.trial, state.x
    state.gradient, ray.trial_gradient = ray.trial_gradient, state.gradient
    state.loss, state.gnorm = ray.trial_loss, trial_gnorm
    state.lowest_loss = min(state.lowest_loss, state.loss)
    state.lowest_gnorm = min(state.lowest_gnorm, state.gnorm)
    state.modelled = false
    return state.stalled >= NEWTON_STALLED ? Stop.roundoff : Stop.running
end

"The Hessian at `x` and its Cholesky factor, or where there is none the reflected factor; false if it is not finite."
function model!(state::NewtonState{T}, objective::Objective{T}) where {T}
    state.modelled && return true
    H, W = state.hessian, state.solver.reflectors
    evaluate_hessian!(H, objective, state.x)
    all_finite(H) || return false
    state.modelled = true
    copyto!(W, H)
    state.definite = cholesky_lower!(W)
    state.definite || reduce_model!(state)
    return true
end

function reduce_model!(state::NewtonState{T}) where {T}
    reduce!(state.solver, state.hessian)
    # Along directions without curvature the step is long, but finite.
    longest = LONGEST_STEP * max(two_norm(state.x), one(T))
    floor = max(sqrt(eps(T)) * norm_bound(state.solver), two_norm(state.gradient) / longest, floatmin(T))
    factor!(state.reflected, state.solver, floor)
    return state
end

function direct!(state::NewtonState{T}) where {T}
    ray = state.ray
    for i in eachindex(ray.direction)
        ray.direction[i] = -state.gradient[i]
    end
    if state.definite
        cholesky_solve!(state.solver.reflectors, ray.direction)
    else
        rotate_in!(state.solver, ray.direction)
        solve!(state.reflected, ray.direction)
        rotate_out!(state.solver, ray.direction)
    end
    ray.slope = dot_product(state.gradient, ray.direction)
    return state
end

"Unit vector of negative curvature, downhill, in the ray's direction; false if the negative curvature is only noise."
function escape_direction!(state::NewtonState{T}) where {T}
    d = state.ray.direction
    negative_curvature!(d, state.reflected) || return false
    scale = two_norm(d)
    -state.reflected.lowest / scale^2 > sqrt(eps(T)) * norm_bound(state.solver) || return false
    rotate_out!(state.solver, d)
    dot_product(d, state.gradient) > 0 && (scale = -scale)
    for i in eachindex(d)
        d[i] /= scale
    end
    return true
end

"Is the Hessian at `x` clearly indefinite? Asked where the gradient alone would end the search."
function at_saddle!(state::NewtonState{T}, objective::Objective{T}) where {T}
    model!(state, objective) || return false
    return !state.definite && escape_direction!(state)
end
