# A trust region whose subproblem is solved exactly, made fast in long curved valleys; with the Hessian as its model it
# is Newton's method, with the Gauss–Newton matrix that of Levenberg and Marquardt.

"""
Methods with the fields `initial_radius`, `corrections` and `momentum` of [`NewtonTrustRegion`](@ref), and
`model_matrix!(B, objective, x, method)`, the lower triangle at least of the quadratic model's matrix at `x`.
"""
abstract type TrustRegion <: MinimizeMethod end

"""
    NewtonTrustRegion(; initial_radius = 0.1, corrections = 2, momentum = true)

Exact trust-region Newton method (Moré & Sorensen 1983; Conn, Gould & Toint, Trust-Region Methods, 2000)
with two additions for the flat curved valleys of overparameterised networks, where the radius of a plain
method stays small because a straight step leaves the floor of the valley:

- `corrections`: up to so many chord steps after a step to the boundary, with the Hessian already factored and
  a raised shift, so that they only return to the floor (each costs one gradient, no Hessian);
- `momentum`: the model is built at a point displaced by a multiple of the last displacements, and the
  result is kept only if the loss is lower than where the displacement started (heavy ball with a Newton step
  instead of a gradient step; the multiple adapts to success). It begins when a valley shows.

On 12 problems of 33 parameters and equal cost (2500 units; Hessian 1, gradient 0.32) the geometric mean of
the final loss was 1e-12 without momentum, 6e-14 without corrections and 2e-15 with both. Memory: two P×P
matrices.
"""
struct NewtonTrustRegion <: TrustRegion
    initial_radius::Float64
    corrections::Int
    momentum::Bool
end
function NewtonTrustRegion(; initial_radius=0.1, corrections=2, momentum=true)
    0 < initial_radius < Inf ||
        throw(ArgumentError("initial_radius = $initial_radius: must be positive and finite."))
    corrections >= 0 || throw(ArgumentError("corrections = $corrections: must not be negative."))
    return NewtonTrustRegion(initial_radius, corrections, momentum)
end
method_name(::NewtonTrustRegion) = "NewtonTrustRegion"
model_matrix!(H, objective::Objective, x, ::NewtonTrustRegion) = evaluate_hessian!(H, objective, x)

Base.@kwdef mutable struct TrustRegionState{T<:AbstractFloat,M<:TrustRegion}
    method::M
    x::Vector{T}
    gradient::Vector{T}
    loss::T
    gnorm::T
    center::Vector{T} = zero(x)                 # where the quadratic model is built: x, or displaced from it
    center_gradient::Vector{T} = zero(x)
    center_loss::T = loss
    displaced::Bool = false
    modelled::Bool = false                      # subproblem holds the matrix of the model at center
    hessian::Matrix{T} = zeros(T, length(x), length(x))     # of the model
    subproblem::Subproblem{T} = Subproblem{T}(length(x))
    step::Vector{T} = zero(x)
    trial::Vector{T} = zero(x)
    trial_gradient::Vector{T} = zero(x)
    corrected::Vector{T} = zero(x)
    corrected_gradient::Vector{T} = zero(x)
    velocity::Vector{T} = zero(x)               # running mean of accepted displacements
    reach::T = 1                                # the center is displaced by reach * velocity
    rest::Bool = true                           # no displacement this time
    strayed::Int = 0                            # steps that the model did not foretell, less what good steps take off
    radius::T = method.initial_radius
    rejections::Int = 0                         # in a row, at this center
    standstill_loss::T = Inf                    # where the radius last collapsed
    standstill_gnorm::T = Inf
    standstills::Int = 0                        # collapses in a row without progress between them
end

make_state(method::M, objective::Objective{T}, x0::Vector{T}) where {T,M<:TrustRegion} =
    TrustRegionState{T,M}(; method=method, first_point(objective, x0)...)

# Below: measured on the 33-parameter problem; the result is not sensitive to factors of 1.5.
const SHRINK = 0.3
const GROW = 2.0
const CORRECTION_SHIFT = 5.0        # × λ: at 1 the corrections also drift along the valley and spoil the step
const VELOCITY_MEMORY = 0.3
# A valley shows by so many steps to the boundary, or inside where the model does not foretell the loss. Where the
# minimum is a point the way is mostly shorter, and momentum cost half as much again (30 problems of 9 to 57
# parameters).
const VALLEY = 10
const REACH_UP = 1.3
const REACH_DOWN = 0.5
const DISPLACED_TRIES = 2
const UNRESOLVED_TRIES = 8
const STANDSTILLS = 2
const LAST_DIGITS_TRIALS = 128

"One trial step; the Hessian is evaluated only if the center has moved."
function step!(state::TrustRegionState{T}, objective::Objective{T}, method::TrustRegion) where {T}
    sub = state.subproblem
    if !state.modelled
        place_center!(state, objective, method)
        model_matrix!(state.hessian, objective, state.center, state.method)
        if !all_finite(state.hessian)
            state.displaced || return Stop.diverged
            withdraw!(state)
            return Stop.running
        end
        reduce!(sub, state.hessian)
        state.modelled = true
        state.rejections = 0
    end
    solve_subproblem!(state.step, sub, state.center_gradient, state.radius)
    moved = shift_by!(state.trial, state.center, state.step)
    if !moved
        state.displaced || return standstill!(state, objective, method)
        withdraw!(state)
        return Stop.running
    end
    trial_loss = evaluate!(state.trial_gradient, objective, state.trial)
    trial_gnorm = supnorm(state.trial_gradient)
    if !sub.interior && isfinite(trial_loss) && isfinite(trial_gnorm)
        trial_loss = correct!(state, objective, method.corrections, trial_loss)
        trial_gnorm = supnorm(state.trial_gradient)
    end
    return judge!(state, objective, method, trial_loss, trial_gnorm)
end

"Choose where the next model is built: displaced along the velocity, or `x` itself."
function place_center!(state::TrustRegionState{T}, objective::Objective{T},
                       method::TrustRegion) where {T}
    state.displaced = false
    if method.momentum && !state.rest && state.strayed >= VALLEY
        for i in eachindex(state.x)
            state.center[i] = state.x[i] + state.reach * state.velocity[i]
        end
        state.center_loss = evaluate!(state.center_gradient, objective, state.center)
        state.displaced = isfinite(state.center_loss) && isfinite(supnorm(state.center_gradient))
        state.displaced || (state.reach *= T(REACH_DOWN))
    end
    if !state.displaced
        copyto!(state.center, state.x)
        copyto!(state.center_gradient, state.gradient)
        state.center_loss = state.loss
    end
    state.rest = false
    return state
end

"The displacement did not pay: go back to `x`, and displace less next time."
function withdraw!(state::TrustRegionState{T}) where {T}
    state.reach = max(state.reach * T(REACH_DOWN), T(0.01))
    state.rest = true
    state.modelled = false
    return state
end

"""
Chord steps c = −(H + 5λI)⁻¹∇L(trial) with the reduced Hessian of the center, as long as the loss falls. Along
the stiff directions they are Newton steps back to the floor of the valley, along the flat ones they are
short.
"""
function correct!(state::TrustRegionState{T}, objective::Objective{T}, corrections::Int,
                  trial_loss::T) where {T}
    sub = state.subproblem
    c = sub.work
    reference = two_norm(state.step)
    corrections > 0 && factor!(sub.solver, T(CORRECTION_SHIFT) * sub.shift) || return trial_loss
    for k in 1:corrections
        for i in eachindex(c)
            c[i] = -state.trial_gradient[i]
        end
        rotate_in!(sub.solver, c)
        solve!(c, sub.solver, c)
        two_norm(c) <= reference || break
        rotate_out!(sub.solver, c)
        shift_by!(state.corrected, state.trial, c)
        loss = evaluate!(state.corrected_gradient, objective, state.corrected)
        lower(loss, supnorm(state.corrected_gradient), trial_loss) || break
        trial_loss = loss
        state.trial, state.corrected = state.corrected, state.trial
        state.trial_gradient, state.corrected_gradient = state.corrected_gradient, state.trial_gradient
    end
    return trial_loss
end

"Accept or reject the trial point, and set the radius."
function judge!(state::TrustRegionState{T}, objective::Objective{T}, method::TrustRegion, trial_loss::T,
                trial_gnorm::T) where {T}
    sub = state.subproblem
    length = two_norm(state.step)
    quality = step_quality(trial_loss, trial_gnorm, state.loss, state.gnorm, sub.reduction; from=state.center_loss)
    # Rounding in the sum over samples can exceed eps·|L|; a decrease seen by the gradients counts.
    if quality.resolved && quality.ratio < 0.25 && quality.calmer && !state.displaced && slope_ratio(state) > 0.25
        quality = StepQuality{T}(slope_ratio(state), true, true)
    elseif !quality.resolved && !quality.calmer
        state.radius = T(SHRINK) * min(state.radius, length)
    elseif quality.resolved && quality.ratio < 0.25
        state.radius = T(SHRINK) * length
    elseif !sub.interior && (!quality.resolved || quality.ratio > 0.75)
        state.radius = max(state.radius, T(GROW) * length)
    end
    limit = sqrt(sqrt(floatmax(T)))
    state.radius = min(state.radius, limit)
    good = is_good(quality, T(1e-4))
    if good && (!state.displaced || trial_loss < state.loss)
        foretold = sub.interior && iszero(sub.shift) && abs(quality.ratio - 1) < 0.1
        accepted!(state, trial_loss, trial_gnorm, !quality.resolved || foretold)
        return Stop.running
    end
    state.rejections += 1
    if state.displaced
        (good || !quality.resolved || state.rejections >= DISPLACED_TRIES) && withdraw!(state)
        return Stop.running
    end
    !quality.resolved && state.rejections >= UNRESOLVED_TRIES && return standstill!(state, objective, method)
    return Stop.running
end

"""
No step is accepted any more. Rounding errors may have rejected good steps and shrunk the radius far below
what the model deserves, so begin again with a large one; it is over when that has not helped, twice in a row.
"""
function standstill!(state::TrustRegionState{T}, objective::Objective{T}, method::TrustRegion) where {T}
    progress = state.standstill_loss - state.loss > T(0.01) * abs(state.loss) ||
               state.gnorm < T(0.5) * state.standstill_gnorm
    state.standstills = progress ? 1 : state.standstills + 1
    state.standstills > STANDSTILLS && return last_digits!(state, objective)
    state.standstill_loss = state.loss
    state.standstill_gnorm = state.gnorm
    state.radius = T(method.initial_radius)
    state.rejections = 0
    return Stop.running
end

function accepted!(state::TrustRegionState{T}, trial_loss::T, trial_gnorm::T, well_modelled::Bool) where {T}
    old = T(VELOCITY_MEMORY)
    for i in eachindex(state.x)
        state.velocity[i] = old * state.velocity[i] + (1 - old) * (state.trial[i] - state.x[i])
    end
    state.displaced && (state.reach = min(state.reach * T(REACH_UP), T(10)))
    # Quadratic convergence needs no help.
    well_modelled && (state.rest = true)
    state.strayed = well_modelled ? div(state.strayed, 2) : state.strayed + 1
    state.modelled = false
    return accepted!(state, state, trial_loss, trial_gnorm)
end

"Actual over predicted reduction, the actual one by the trapezoidal rule on the slope at both ends."
function slope_ratio(state::TrustRegionState{T}) where {T}
    s = zero(T)
    for i in eachindex(state.x)
        s -= (state.center_gradient[i] + state.trial_gradient[i]) * (state.trial[i] - state.center[i])
    end
    return s / (2 * state.subproblem.reduction)
end

"""
A small regularised Newton step to the floor of the valley, where the gradient norm is smallest. Kept if the gradient
norm falls and the loss does not rise.
"""
function settle!(state::TrustRegionState{T}, objective::Objective{T}, method::TrustRegion) where {T}
    model_at_x!(state, objective) || return Stop.diverged
    sub = state.subproblem
    solve_subproblem!(state.step, sub, state.gradient, state.radius)
    regularised_step!(state, objective, T(CORRECTION_SHIFT) * sub.shift) || (state.radius *= T(SHRINK))
    return Stop.running
end

"The step −(H + shift I)⁻¹∇L with the Hessian as it is; kept if gradient norm falls and loss does not rise."
function regularised_step!(state::TrustRegionState{T}, objective::Objective{T}, shift::T) where {T}
    sub = state.subproblem
    factor!(sub.solver, shift) || return false
    for i in eachindex(state.step)
        state.step[i] = -state.gradient[i]
    end
    rotate_in!(sub.solver, state.step)
    solve!(state.step, sub.solver, state.step)
    rotate_out!(sub.solver, state.step)
    shift_by!(state.trial, state.x, state.step) || return false
    trial_loss = evaluate!(state.trial_gradient, objective, state.trial)
    trial_gnorm = supnorm(state.trial_gradient)
    calmer(trial_loss, trial_gnorm, state.loss, state.gnorm) || return false
    accepted!(state, trial_loss, trial_gnorm, true)
    return true
end

"""
The last digits: a gradient this small depends on how the parameters are rounded, so try a range of shifts and
keep what lowers its norm. Costs `LAST_DIGITS_TRIALS` gradients, once.
"""
function last_digits!(state::TrustRegionState{T}, objective::Objective{T}) where {T}
    model_at_x!(state, objective) || return Stop.diverged
    sub = state.subproblem
    factor = sqrt(sqrt(T(10)))
    shift = sub.bound
    for attempt in 1:LAST_DIGITS_TRIALS
        regularised_step!(state, objective, shift)
        shift = shift > sub.floor ? shift / factor : sub.bound
    end
    return Stop.roundoff
end

"Put the center of the model at `x`; false if the Hessian there is not finite."
function model_at_x!(state::TrustRegionState{T}, objective::Objective{T}) where {T}
    state.modelled && !state.displaced && return true
    copyto!(state.center, state.x)
    copyto!(state.center_gradient, state.gradient)
    state.center_loss = state.loss
    state.displaced = false
    model_matrix!(state.hessian, objective, state.center, state.method)
    all_finite(state.hessian) || return false
    reduce!(state.subproblem, state.hessian)
    state.modelled = true
    state.rejections = 0
    return true
end

function at_saddle!(state::TrustRegionState{T}, objective::Objective{T}) where {T}
    model_at_x!(state, objective) || return false
    bound = state.subproblem.bound
    return bound > 0 && !factor!(state.subproblem.solver, sqrt(eps(T)) * bound)
end

"The last Hessian is that of a point within rounding of `x`."
settled!(state::TrustRegionState{T,NewtonTrustRegion}) where {T} =
    factor!(state.subproblem.solver, -sqrt(eps(T)) * state.subproblem.bound)

register!(MINIMIZE_METHODS, "NewtonTrustRegion", NewtonTrustRegion(),
          "Newton's method with an exact trust region, fast in curved valleys"; matrices=3,
          when="Hessians are cheap: every iteration is a Newton step")
