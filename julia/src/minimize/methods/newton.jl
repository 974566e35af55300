# Newton's method with a line search.

"""
    Newton()

Newton's method with Hager and Zhang's line search. Where the Hessian is positive definite, a Cholesky factorisation
gives the step; where it is not, its eigenvalues are replaced by their absolute values, so that the step descends, away
from saddles too; from a saddle itself it leaves along a direction of negative curvature. One Hessian and P³/3
operations per iteration (some 9P³ where indefinite); memory: four P×P matrices. In flat valleys use
[`NewtonTrustRegion`](@ref): a Newton step there is longer than its model is good.
"""
struct Newton <: MinimizeMethod end
method_name(::Newton) = "Newton"

Base.@kwdef mutable struct NewtonState{T<:AbstractFloat} <: LineSearchState{T}
    x::Vector{T}
    gradient::Vector{T}
    loss::T
    gnorm::T
    lowest_loss::T = loss
    lowest_gnorm::T = gnorm
    hessian::Matrix{T} = zeros(T, length(x), length(x))
    # its matrix holds the Cholesky factor where there is one
    spectrum::SymmetricEigen{T} = SymmetricEigen{T}(length(x))
    rotated::Vector{T} = zero(x)
    ray::Ray{T} = Ray{T}(length(x))
    modelled::Bool = false          # `hessian` is that of `x`
    definite::Bool = false
    stalled::Int = 0
end

make_state(::Newton, objective::Objective{T}, x0::Vector{T}) where {T} = NewtonState{T}(; first_point(objective, x0)...)

const NEWTON_STALLED = 6
const LONGEST_STEP = 1000       # relative to the parameters

function step!(state::NewtonState{T}, objective::Objective{T}, ::Newton) where {T}
    model!(state, objective) || return Stop.diverged
    ray = state.ray
    slack = loss_noise(state.lowest_loss)
    ray.loss = state.loss
    direct!(state)
    if state.definite && !isfinite(ray.slope)      # curvatures that underflow
        decompose!(state.spectrum, state.hessian) || return Stop.diverged
        state.definite = false
        direct!(state)
    end
    found = ray.slope < 0 && isfinite(ray.slope) && line_search!(ray, objective, state.x, one(T), slack)
    # Rounding hides the slopes too: the full step, if it lowers the gradient norm.
    found || !state.definite || (found = calms!(ray, objective, state))
    if !found && !state.definite
        escape_direction!(state) && (found = descend!(ray, objective, state.x, state.gradient))
    end
    found && !worse(ray.trial_loss, state.lowest_loss) || return Stop.roundoff
    accepted!(state)
    state.modelled = false
    return state.stalled >= NEWTON_STALLED ? Stop.roundoff : Stop.running
end

"The Hessian at `x` and its Cholesky factor, or where there is none its eigenvectors; false if it is not finite."
function model!(state::NewtonState{T}, objective::Objective{T}) where {T}
    state.modelled && return true
    H, W = state.hessian, state.spectrum.vectors
    evaluate_hessian!(H, objective, state.x)
    all_finite(H) || return false
    state.modelled = true
    copyto!(W, H)
    state.definite = cholesky_lower!(W)
    return state.definite || decompose!(state.spectrum, H)
end

function direct!(state::NewtonState{T}) where {T}
    ray, rotated, spectrum = state.ray, state.rotated, state.spectrum
    for i in eachindex(ray.direction)
        ray.direction[i] = -state.gradient[i]
    end
    if state.definite
        cholesky_solve!(spectrum.vectors, ray.direction)
    else
        # Along directions without curvature the step is long, but finite; noise alone is no curvature. 12 seeds of an
        # overparameterised student, mean log10 of the loss after 3 s: -10.9 with 6e-6 for eps, -14.1 with 1.5e-8, -19
        # so.
        longest = LONGEST_STEP * max(two_norm(state.x), one(T))
        floor = max(eps(T) * supnorm(spectrum.values), two_norm(state.gradient) / longest, floatmin(T))
        rotate!(rotated, 'T', spectrum, ray.direction)
        for i in eachindex(rotated)
            rotated[i] /= max(abs(spectrum.values[i]), floor)
        end
        rotate!(ray.direction, 'N', spectrum, rotated)
    end
    ray.slope = dot_product(state.gradient, ray.direction)
    return state
end

"Unit vector of negative curvature, downhill, in the ray's direction; false if the negative curvature is only noise."
function escape_direction!(state::NewtonState{T}) where {T}
    d, spectrum = state.ray.direction, state.spectrum
    lowest, at = findmin(spectrum.values)
    -lowest > sqrt(eps(T)) * supnorm(spectrum.values) || return false
    copyto!(d, 1, spectrum.vectors, 1 + (at - 1) * length(d), length(d))
    if dot_product(d, state.gradient) > 0
        for i in eachindex(d)
            d[i] = -d[i]
        end
    end
    return true
end

function at_saddle!(state::NewtonState{T}, objective::Objective{T}) where {T}
    model!(state, objective) || return false
    return !state.definite && escape_direction!(state)
end

"Judged by the pivots of the last Cholesky factor, whose spread is at least about that of the eigenvalues over P."
function settled!(state::NewtonState{T}) where {T}
    state.definite || return false
    L, P = state.spectrum.vectors, length(state.x)
    lowest, highest = extrema(abs2(L[i, i]) for i in 1:P)
    return lowest > P * sqrt(eps(T)) * highest
end

register!(MINIMIZE_METHODS, "Newton", Newton(), "Newton's method with a line search"; matrices=4,
          when="the minimum is a point, not a valley")
