"""
    Controller(predictive, order)

Step size from an error estimate that is proportional to h^`order`. For an explicit method the PI rule (Hairer and
Wanner, Solving ODEs II, IV.2) with the exponents 0.7/order and 0.4/order, which keeps the step quiet at the limit of
stability; for a stiff method Gustafsson's predictive rule (the same, IV.8), which sees the step coming that the error
will ask for.
"""
mutable struct Controller
    predictive::Bool
    order::Int
    err::Float64        # of the last accepted step
    h::Float64          # its length, zero if there was none
    growth::Float64     # limit on the next step's growth
    hold::Int           # steps to come that shall not be longer
end
Controller(predictive::Bool, order::Int) = Controller(predictive, order, 1.0, 0.0, MAX_GROWTH, 0)

const MAX_GROWTH = 10.0
const MIN_FACTOR = 0.2
const SAFETY = 0.9

"Factor from the accepted step `h` with error `err` to the next; `clean` if nothing was rejected on the way."
function accept_factor!(c::Controller, err::Float64, h::Float64, clean::Bool, indefinite::Bool)
    err = max(err, 1e-10)
    if c.predictive
        factor = SAFETY * err^(-1 / c.order)
        if c.h > 0
            factor = min(factor, factor * (h / c.h) * (c.err / err)^(1 / c.order))
        end
    else
        factor = SAFETY * err^(-0.7 / c.order) * c.err^(0.4 / c.order)
    end
    # After a step cut by an unstable direction the next one tries a little more, and more again while that
    # goes well, since each failed trial costs a factorization; at low order, where a saddle takes very many steps, it
    # waits a little before it does.
    c.hold = indefinite && c.order <= 3 ? 5 : max(c.hold - 1, 0)
    c.growth = c.hold > 0 ? 1.0 : indefinite ? 1.25 : min(MAX_GROWTH, 1.5 * max(c.growth, 0.84))
    c.err = max(err, 1e-4)
    c.h = h
    return clamp(factor, MIN_FACTOR, clean || indefinite ? c.growth : 1.0)
end

"Factor after a step that failed with error `err`."
reject_factor(c::Controller, err::Float64) = clamp(SAFETY * err^(-1 / c.order), MIN_FACTOR, SAFETY)

"""
Root mean square over the parameters of the error in `x` relative to `abstol + reltol * |x|`.
Not finite if anything in it is not.
"""
function error_norm(problem::FlowProblem{T}, state::FlowState{T}) where {T}
    return weighted_norm(state.err, state.y, state.ynew, problem.root, T(state.abstol), T(state.reltol),
                         max(problem.n, 1))
end

function weighted_norm(v::Vector{T}, y::Vector{T}, z::Vector{T}, root::Vector{T}, abstol::T, reltol::T,
                       n) where {T}
    s = zero(T)
    @inbounds @simd for i in eachindex(v)
        # In y the tolerance of x is abstol / root; z - z carries a trial point that is not finite into the
        # sum.
        w = v[i] * root[i] / (abstol + reltol * root[i] * max(abs(y[i]), abs(z[i])))
        s += w * w + (z[i] - z[i])
    end
    return sqrt(Float64(s) / n)
end

"""
A first step after Hairer, Nørsett and Wanner, Solving ODEs I, II.4: from the sizes of the state, its
derivative and, by an Euler step, its second derivative. Costs one gradient.
"""
function initial_step!(problem::FlowProblem{T}, state::FlowState{T}, maxT::Float64, order::Int) where {T}
    root, abstol, reltol, n = problem.root, T(state.abstol), T(state.reltol), max(problem.n, 1)
    d0 = weighted_norm(state.y, state.y, state.y, root, abstol, reltol, n)
    d1 = weighted_norm(state.g, state.y, state.y, root, abstol, reltol, n)
    h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1
    h0 = min(h0, maxT)
    copyto!(state.ynew, state.y)
    add_scaled!(state.ynew, -T(h0), state.g)
    gradient_at!(state.gnew, problem, state.ynew)
    @. state.err = state.gnew - state.g
    d2 = weighted_norm(state.err, state.y, state.y, root, abstol, reltol, n) / h0
    d = max(d1, d2)
    h1 = d <= 1e-15 ? max(1e-6, 1e-3 * h0) : (0.01 / d)^(1 / order)
    h = min(100 * h0, h1, maxT)
    return isfinite(h) && h > 0 ? h : min(1e-6, maxT)
end

"""
The most that the loss may rise in an accepted step. Along the flow it falls, so a rise is only allowed
within what the error of the step means for the loss, Σ|∂L err|, and within round-off: of the loss itself
and, since residuals of size sqrt(L) come out of outputs of size one or more, of sqrt(L) times that size.
"""
function loss_slack(state::FlowState{T}) where {T}
    s = zero(T)
    g, e = state.gnew, state.err
    @inbounds @simd for i in eachindex(g)
        s += abs(g[i] * e[i])
    end
    loss = abs(state.loss)
    return s + 64 * eps(T) * (loss + sqrt(loss * state.loss_scale))
end

"""
    Stagnation(x)

Recognises convergence to round-off: a window of `WINDOW` accepted steps, or of `LEAPS` where each doubles the time, in
which neither loss nor gradient reached a new low and the gradient did not grow (as it does when a saddle is left),
although the gradient promised a visible decrease; or `WINDOW` steps in which the point did not move beyond round-off.
"""
mutable struct Stagnation{T<:AbstractFloat}
    y::Vector{T}
    t::Float64
    loss::T
    lowest_gnorm::Float64
    highest_gnorm::Float64        # since the last new low
    promised::Float64
    steps::Int
end
Stagnation(state::FlowState{T}) where {T} =
    Stagnation{T}(copy(state.y), 0.0, state.loss, state.gnorm, state.gnorm, 0.0, 0)

const WINDOW = 100
const LEAPS = 6        # steps in which the clock doubles at least

function restart!(s::Stagnation, state::FlowState)
    copyto!(s.y, state.y)
    s.t, s.promised, s.steps = state.t, 0.0, 0
    return false
end

function stagnates!(s::Stagnation{T}, state::FlowState{T}, maxT::Float64, kinked::Bool) where {T}
    better = false
    # The marks are only lowered by more than round-off, so that slow progress adds up.
    if state.loss < s.loss - 4 * eps(T) * abs(s.loss)
        s.loss = state.loss
        better = true
    end
    if state.gnorm < 0.9 * s.lowest_gnorm
        s.lowest_gnorm = state.gnorm
        better = true
    end
    s.steps += 1
    s.promised += state.h * Float64(LinearAlgebra.dot(state.g, state.g))
    if better
        s.highest_gnorm = state.gnorm
        return restart!(s, state)
    elseif state.gnorm > 2 * s.highest_gnorm        # rounding noise does not go on growing
        s.highest_gnorm = state.gnorm
        return restart!(s, state)
    end
    noise = 64 * eps(T)
    # Where steps have become leaps it takes only a few of them for the gradient to promise what does not come.
    leaping = s.steps >= LEAPS && state.t > 2.0^s.steps * s.t && isinf(maxT)
    leaping && s.promised > noise * abs(state.loss) && return true
    s.steps < WINDOW && return false
    # A clock that still runs in leaps reaches a finite maxT for nothing.
    isfinite(maxT) && state.t > 2 * s.t && return restart!(s, state)
    moved = zero(T)
    size = floatmin(T) / noise          # below floatmin rounding is absolute
    @inbounds for i in eachindex(s.y)
        moved = max(moved, abs(state.y[i] - s.y[i]))
        size = max(size, abs(state.y[i]))
    end
    (s.promised > noise * abs(state.loss) || moved <= noise * size) && return true
    # Steps that end at kinks do not become the leaps in which rounding is noticed elsewhere.
    kinked && within(state, 64 * noise) && return true
    return restart!(s, state)
end

# Whether the gradient is so little that a move of the parameters by their own size would change the loss by less than
# the part `little` of it, or of what rounding has to do with.
function within(state::FlowState{T}, little::T) where {T}
    size = maximum(abs, state.y)
    return state.gnorm * size <= little * sqrt(abs(state.loss) * state.loss_scale)
end

# With kinks no progress may also be that of steps that all end at kinks, so the gradient must be one whose square
# cannot be seen in the loss.
arrived(state::FlowState{T}) where {T} = at_floor(state) || within(state, 64 * sqrt(eps(T)))
