# Newton steps with L-BFGS steps between them, which share the factor of the shifted Hessian.

"""
    NewtonLBFGS()

Regularised Newton steps s = −(H + λI)⁻¹∇L, each followed by steps of L-BFGS (Nocedal & Wright, Numerical
Optimization, 2006, algorithm 7.4) that start from the same factor in place of a multiple of the identity, with Hager
and Zhang's line search, for as long as they lower the loss by more than a new Hessian would. A Hessian costs as much
as P/6 gradients, so that many steps share it. λ follows the ratio of actual to predicted decrease. Two more things
help in narrow curved valleys:

- where the gradient is mostly that of the steep walls, chord steps with a shift between the walls' curvature and the
  floor's return to the floor, without going along it;
- where the output layer is linear and the loss a mean square, trials take the best output weights for their hidden
  weights (variable projection; Golub & Pereyra, SIAM J. Numer. Anal. 10 (1973) 413). Valleys along which pairs of
  units approach each other while their output weights grow are straight lines then.

Memory: two P×P matrices, and up to `PAIRS` steps.
"""
struct NewtonLBFGS <: MinimizeMethod
    yields::Bool            # to variable projection, where nothing but the last digits of a perfect fit is left
end
NewtonLBFGS() = NewtonLBFGS(false)
method_name(::NewtonLBFGS) = "NewtonLBFGS"

const PAIRS = 100

"How many gradients a Hessian and its factor take: 4, 5, 10 and 17 with 9, 21, 57 and 141 parameters."
hessian_price(P::Int) = max(3, div(P, 6)) + 1

Base.@kwdef mutable struct NewtonLBFGSState{T<:AbstractFloat,R} <: LineSearchState{T}
    x::Vector{T}
    gradient::Vector{T}
    loss::T
    gnorm::T
    lowest_loss::T = loss
    lowest_gnorm::T = gnorm
    hessian::Matrix{T} = zeros(T, length(x), length(x))
    factor::Matrix{T} = zero(hessian)       # of H + shift I
    shift::T = 1
    scale::T = 0                            # largest entry of H
    modelled::Bool = false                  # `hessian` is that of a point from which only chord steps were made
    ray::Ray{T} = Ray{T}(length(x))
    best::Ray{T} = Ray{T}(length(x))        # of the projected trials
    pairs::LimitedInverse{T}
    step::Vector{T} = zero(x)
    change::Vector{T} = zero(x)
    projection::R                           # nothing, where the output layer is not linear
    multiple::T = 1                         # of the step, of the last projected trial that was lower
    searching::Bool = false                 # L-BFGS steps are made
    searched::Int = 0                       # since the last Hessian
    slow::Bool = false                      # the steps with the last Hessian did not get far
    start_loss::T = loss                    # where the last Hessian was made
    start_count::Int = 0                    # gradients by then
    rejections::Int = 0
    stalled::Int = 0
    saddle::Bool = false                    # the gradient vanishes where the Hessian is indefinite
    perfect::T                              # losses below this are those of perfect fits
    yields::Bool = false
end

make_state(method::NewtonLBFGS, objective::Objective, x0::Vector) =
    projected_state(method, objective, x0, output_projection(objective.net))

"The state for one of the two types of projections: where both are possible, whatever is made of it has no known type."
function projected_state(method::NewtonLBFGS, objective::Objective{T}, x0::Vector{T}, projection::R) where {T,R}
    P = length(x0)
    pairs = inverse_model(LBFGS(min(PAIRS, 3 * hessian_price(P)) + 1), T, P)
    perfect = method.yields ? T(PERFECT_FIT) * target_scale(objective.net) : T(-Inf)
    return NewtonLBFGSState{T,R}(; first_point(objective, x0)..., pairs=pairs, projection=projection, perfect=perfect)
end

# Measured on the rows of docs/performance.md, "From random starts"; the results change little with factors of two.
const SHIFT_UP = 4
const SHIFT_DOWN = 0.1
const PRODUCTIVE = 0.5          # decrease per gradient, relative to that since the last Hessian
const FAST = 0.3                # a gradient that falls so fast is worth a step by itself
const VALLEY_STEPS = 3          # so few L-BFGS steps were worth it: the way leads through a valley
const SLOW = 1e-3               # so does a decrease by this part of the loss since the last Hessian
const UNRESOLVED_NEWTON = 6
const SHIFTS = 60

"A fit whose residuals are a thousandth of the targets is nearly perfect."
const PERFECT_FIT = 1e-6

function step!(state::NewtonLBFGSState{T}, objective::Objective{T}, method::NewtonLBFGS) where {T}
    state.saddle && return escape!(state, objective)
    state.searching && return search!(state, objective)
    if !state.modelled
        slow = state.start_count > 0 &&
               (state.searched <= VALLEY_STEPS || state.start_loss - state.loss < T(SLOW) * state.loss)
        if slow && state.loss < state.perfect
            state.yields = true
            return Stop.running
        end
        model!(state, objective) || return Stop.diverged
        state.slow = slow
        state.start_loss, state.start_count = state.loss, objective.nfev
        state.rejections = 0
        state.slow && return_to_floor!(state, objective, T(FLOOR_GAIN), T(FLOOR_RECORD) * state.lowest_gnorm)
    end
    return newton_step!(state, objective)
end

"The Hessian at `x`; false where it is not finite."
function model!(state::NewtonLBFGSState{T}, objective::Objective{T}) where {T}
    evaluate_hessian!(state.hessian, objective, state.x)
    state.scale = maximum_entry(state.hessian)
    return state.modelled = all_finite(state.hessian)
end

"To the floor of the valley, where the gradient is smallest."
function settle!(state::NewtonLBFGSState{T}, objective::Objective{T}, ::NewtonLBFGS) where {T}
    state.searching = false
    state.modelled || model!(state, objective) || return Stop.diverged
    return_to_floor!(state, objective, T(0.5), T(Inf))
    state.modelled = false
    return Stop.running
end

"The Hessian's largest entry, which is on its diagonal where it is positive definite."
function maximum_entry(H::Matrix{T}) where {T}
    m = zero(T)
    for h in H
        m = max(m, abs(h))
    end
    return m
end

"The factor of H + shift I; false where it is not positive definite."
function factor_shifted!(state::NewtonLBFGSState{T}, shift::T) where {T}
    W = copyto!(state.factor, state.hessian)
    for i in 1:size(W, 1)
        W[i, i] += shift
    end
    return cholesky_lower!(W)
end

"step ← −(H + shift I)⁻¹ g with the last factor."
function shifted_step!(step::Vector{T}, state::NewtonLBFGSState{T}, g::Vector{T}) where {T}
    for i in eachindex(step)
        step[i] = -g[i]
    end
    return cholesky_solve!(state.factor, step)
end

"The smallest shift from the present one on whose factor exists; false if there is none, since numbers overflow."
function find_shift!(state::NewtonLBFGSState{T}) where {T}
    for attempt in 1:SHIFTS
        factor_shifted!(state, state.shift) && return true
        state.shift = raised_shift(state)
    end
    return false
end
raised_shift(state::NewtonLBFGSState{T}) where {T} = max(SHIFT_UP * state.shift, 10 * eps(T) * state.scale)

function newton_step!(state::NewtonLBFGSState{T}, objective::Objective{T}) where {T}
    find_shift!(state) || return Stop.roundoff
    ray, s = state.ray, state.step
    shifted_step!(s, state, state.gradient)
    shift_by!(ray.trial, state.x, s) || return Stop.roundoff
    trial_loss = evaluate!(ray.trial_gradient, objective, ray.trial)
    # gᵀs + ½sᵀHs, with Hs = −g − λs
    predicted = -(dot_product(state.gradient, s) - state.shift * dot_product(s, s)) / 2
    quality = step_quality(trial_loss, supnorm(ray.trial_gradient), state.loss, state.gnorm, predicted)
    ratio, good = quality.ratio, is_good(quality, T(0.1))
    shift = state.shift
    if good && (!quality.resolved || ratio > T(0.75))
        shift *= T(SHIFT_DOWN)
    elseif good && ratio < T(0.25)
        shift *= 2
    end
    ray.trial_loss = trial_loss
    if quality.resolved && state.slow && !(abs(ratio - 1) < T(0.1)) &&
       projected_trials!(state, objective, good ? trial_loss : state.loss)
        good = true
        shift = T(SHIFT_DOWN) * state.shift
    end
    if !good
        state.rejections += 1
        state.shift = raised_shift(state)
        return !quality.resolved && state.rejections >= UNRESOLVED_NEWTON ? Stop.roundoff : Stop.running
    end
    reset!(state.pairs)
    accept_pair!(state)
    state.shift = shift
    state.modelled = false
    state.searching, state.searched = true, 0
    return Stop.running
end

"The ray's trial becomes the point; what it tells of the Hessian is kept."
function accept_pair!(state::NewtonLBFGSState{T}) where {T}
    s, y, ray = state.step, state.change, state.ray
    for i in eachindex(s)
        s[i] = ray.trial[i] - state.x[i]
        y[i] = ray.trial_gradient[i] - state.gradient[i]
    end
    sy = dot_product(s, y)
    sy > eps(T) * two_norm(s) * two_norm(y) && isfinite(sy) && update!(state.pairs, s, y, sy)
    return accepted!(state)
end

const NEWTON_LBFGS_STALLED = 20

"One step of L-BFGS on top of the factor, as long as it is worth it."
function search!(state::NewtonLBFGSState{T}, objective::Objective{T}) where {T}
    ray = state.ray
    apply_inverse!(ray.direction, state.pairs, state.gradient, state.factor)
    for i in eachindex(ray.direction)
        ray.direction[i] = -ray.direction[i]
    end
    ray.slope = dot_product(state.gradient, ray.direction)
    ray.loss = state.loss
    before, loss, gnorm = objective.nfev, state.loss, state.gnorm
    found = ray.slope < 0 && isfinite(ray.slope) &&
            line_search!(ray, objective, state.x, one(T), loss_noise(state.lowest_loss)) &&
            !worse(ray.trial_loss, state.lowest_loss)
    state.searching = false
    found || return Stop.running
    accept_pair!(state)
    state.searched += 1
    since = objective.nfev - state.start_count + hessian_price(length(state.x))
    gain, whole = (loss - state.loss) / (objective.nfev - before), (state.start_loss - state.loss) / since
    state.searching = state.pairs.count < length(state.pairs.product) &&
                      (gain >= T(PRODUCTIVE) * whole || state.gnorm <= T(FAST) * gnorm)
    return state.stalled >= NEWTON_LBFGS_STALLED ? Stop.roundoff : Stop.running
end

const FLOOR_SHIFTS = ntuple(k -> 10.0^(-2 - k), 11)     # relative to the largest entry of the Hessian
const FLOOR_GAIN = 1e-2         # of the present gradient
const FLOOR_RECORD = 0.25       # of the smallest gradient so far: the way back costs some steps along the valley
const FLOOR_STEPS = 6

"""
Chord steps to the floor of a valley, for a shift for which the gradient that the model leaves, −λs, is at most `gain`
times the present one, which then is that of the walls, and at most `bound`.
"""
function return_to_floor!(state::NewtonLBFGSState{T}, objective::Objective{T}, gain::T, bound::T) where {T}
    s, ray = state.step, state.ray
    for relative in FLOOR_SHIFTS
        shift = T(relative) * state.scale
        shift > 0 && factor_shifted!(state, shift) || return state
        shifted_step!(s, state, state.gradient)
        left = shift * supnorm(s)
        left <= gain * state.gnorm && left <= bound || continue
        for k in 1:FLOOR_STEPS
            shift_by!(ray.trial, state.x, s) || return state
            ray.trial_loss = evaluate!(ray.trial_gradient, objective, ray.trial)
            calmer(ray.trial_loss, supnorm(ray.trial_gradient), state.lowest_loss, T(0.5) * state.gnorm) || return state
            accepted!(state)
            shifted_step!(s, state, state.gradient)
        end
        return state
    end
    return state
end

const EXPANSIONS = 8
# Far out in a valley the output weights cancel and digits are lost: go no further than the gradient asks for.
const GROWTH = 3

"""
Trials along the step in the hidden weights, with the best output weights for each, at one, three, nine … times its
length as long as that pays; true, and the ray's trial is the lowest, if one has a loss below `lowest`.
"""
projected_trials!(state::NewtonLBFGSState{T,Nothing}, objective::Objective{T}, lowest::T) where {T} = false
function projected_trials!(state::NewtonLBFGSState{T}, objective::Objective{T}, lowest::T) where {T}
    best, found = state.best, false
    multiple = max(state.multiple / 3, one(T))
    for expansion in 1:EXPANSIONS
        for i in eachindex(best.trial)
            best.trial[i] = state.x[i] + (i <= state.projection.offset ? multiple * state.step[i] : zero(T))
        end
        project!(state.projection, objective, best.trial, state.shift / multiple) || break
        supnorm(best.trial) <= T(GROWTH) * max(supnorm(state.x), one(T)) || break
        loss = evaluate!(best.trial_gradient, objective, best.trial)
        lower(loss, supnorm(best.trial_gradient), lowest) || break
        state.multiple = multiple
        gain = lowest - loss
        lowest, found = loss, true
        best.trial_loss = loss
        state.ray, state.best = best, state.ray
        best = state.best
        expansion == 1 || gain >= T(0.3) * (state.loss - loss) || break
        multiple *= 3
    end
    found || (state.multiple = max(state.multiple / 9, one(T)))
    return found
end

function at_saddle!(state::NewtonLBFGSState{T}, objective::Objective{T}) where {T}
    model!(state, objective) || return false
    return state.saddle = state.scale > 0 && !factor_shifted!(state, sqrt(eps(T)) * length(state.x) * state.scale)
end

yields(state::NewtonLBFGSState) = state.yields

const INVERSE_ITERATIONS = 20

"From a saddle along the direction of the most negative curvature, by inverse iteration just below its shift."
function escape!(state::NewtonLBFGSState{T}, objective::Objective{T}) where {T}
    state.saddle = state.searching = state.modelled = false
    d = fill_generic!(state.ray.direction)
    state.shift = zero(T)
    find_shift!(state) || return Stop.roundoff
    for k in 1:INVERSE_ITERATIONS
        cholesky_solve!(state.factor, d)
        length = two_norm(d)
        for i in eachindex(d)
            d[i] /= length
        end
    end
    if dot_product(d, state.gradient) > 0
        for i in eachindex(d)
            d[i] = -d[i]
        end
    end
    state.ray.loss = state.loss
    descend!(state.ray, objective, state.x, state.gradient) || return Stop.roundoff
    accepted!(state)
    return Stop.running
end

register!(MINIMIZE_METHODS, "NewtonLBFGS", NewtonLBFGS(),
          "Newton steps with L-BFGS steps between them that share the Hessian's factor"; matrices=2,
          when="from anywhere; fast in narrow curved valleys")
