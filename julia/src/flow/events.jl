# A user's condition that ends a flow, located on the interpolant of the step in which it came to hold.

"""
    EventWatch(condition, T, n, degree)

`condition(t, x)` or `condition(t, x, loss, gnorm)`. One that returns `Bool` happens when it becomes true (or holds at
the start); one that returns a number when the number reaches zero or changes its sign (or is zero at the start). It is
looked at after every accepted step and, on the interpolant, at `LOOKS` points between; from there on where a parabola
through three of them comes to zero.
"""
mutable struct EventWatch{T<:AbstractFloat}
    condition::Any
    takes_loss::Bool
    boolean::Bool
    before::Float64                # its value at the last accepted point; ±1 for a Bool
    x::Vector{T}
    step::Vector{T}                # the interpolant of the step
    degree::Int
end

function EventWatch(condition, ::Type{T}, n::Int, degree::Int) where {T}
    takes_loss = applicable(condition, 0.0, T[], zero(T), 0.0)
    takes_loss || applicable(condition, 0.0, T[]) ||
        throw(ArgumentError("event must be a function of (t, x) or of (t, x, loss, gnorm)."))
    return EventWatch{T}(condition, takes_loss, false, NaN, zeros(T, n), zeros(T, n * (degree + 1)), degree)
end

function event_value(watch::EventWatch, t, x, loss, gnorm)
    value = watch.takes_loss ? watch.condition(t, x, loss, gnorm) : watch.condition(t, x)
    value isa Real ||
        throw(ArgumentError("event returned a $(typeof(value)); it must return true or false, or a real number."))
    watch.boolean = value isa Bool
    return watch.boolean ? (value ? 1.0 : -1.0) : Float64(value)
end

# A number may cross zero in both directions, a Bool only becomes true.
happened(watch::EventWatch, before::Float64, after::Float64) =
    watch.boolean ? before < 0 && after > 0 : before != 0 && (after == 0 || before * after < 0)

"Whether the flow is over before it began: the condition holds, or its number is zero."
function holds_at_start!(watch::EventWatch, x, loss, gnorm)
    watch.before = event_value(watch, 0.0, x, loss, gnorm)
    return watch.boolean ? watch.before > 0 : watch.before == 0
end

# Points between those of two steps at which a condition is looked at.
const LOOKS = 3

"The condition at `s` of the trial step, on its interpolant."
function event_inside(watch::EventWatch{T}, problem::FlowProblem{T}, state::FlowState{T}, s::Float64) where {T}
    evaluate_step!(watch.x, watch.step, 0, watch.degree, T(s))
    loss, gnorm = zero(T), 0.0
    if watch.takes_loss
        scale!(state.err, problem, watch.x)
        value_and_gradient_at!(state.gnew, problem, state.err)
        loss, gnorm = problem.value[], problem.gnorm
    end
    return event_value(watch, state.t + s * state.h, watch.x, loss, gnorm)
end

"""
Parts `(a, b)` of the trial step, not yet at `a` and at `b` for the first time seen to have happened; `(0, 0)` where
nothing was seen. Numbers that come near zero between two points, by the parabola through three, are looked at there
too.
"""
function look_inside(watch::EventWatch, problem::FlowProblem, state::FlowState, before::Float64, last::Float64)
    at = [k / (LOOKS + 1) for k in 0:LOOKS+1]
    values = fill(before, LOOKS + 2)
    for k in 1:LOOKS
        state.t < state.t + at[k+1] * state.h < state.t + state.h || continue      # shorter than the spacing of floats
        values[k+1] = event_inside(watch, problem, state, at[k+1])
        happened(watch, before, values[k+1]) && return near_zero(watch, problem, state, before, at, values, k, at[k+1])
    end
    values[end] = last
    happened(watch, before, last) && return near_zero(watch, problem, state, before, at, values, LOOKS + 1, 1.0)
    return near_zero(watch, problem, state, before, at, values, LOOKS + 1, 0.0)
end

# The first sign of it in the first `n` intervals, before the point `s` where it was seen (0: nowhere).
function near_zero(watch::EventWatch, problem, state, before::Float64, at, values, n::Int, s::Float64)
    seen = s > 0 ? n - 1 : n               # intervals at whose ends nothing has happened
    if !watch.boolean
        for k in 2:seen
            a, b, c = at[k-1], at[k], at[k+1]
            fa, fb, fc = values[k-1], values[k], values[k+1]
            curvature = (fa - 2fb + fc) / 2
            slope = (fc - fa) / 2
            curvature * sign(before) > 0 || continue           # bends away from zero at its lowest
            vertex = -slope / 2curvature
            -1 < vertex < 1 || continue
            abs(fb - slope^2 / 4curvature) < abs(fb) || abs(vertex) < 1e-3 || continue
            middle = b + vertex * (b - a)
            a < middle < c && middle != b || continue
            happened(watch, before, event_inside(watch, problem, state, middle)) && return (min(a, middle), middle)
        end
    end
    return s > 0 ? (at[n], s) : (0.0, 0.0)
end

"""
    occurs!(watch, cache, problem, state, t_end) -> s

Where in the trial step (0 < s <= 1) the event happens; zero if it doesn't. If it does, the step is cut to end there,
on the side where it has happened.
"""
function occurs!(watch::EventWatch{T}, @nospecialize(cache::StepCache), problem::FlowProblem{T},
                 state::FlowState{T}, t_end::Float64) where {T}
    unscale!(watch.x, problem, state.ynew)
    before = watch.before
    watch.before = event_value(watch, t_end, watch.x, state.lossnew, state.gnormnew)
    at_end = happened(watch, before, watch.before)
    at_end && watch.takes_loss || interpolate_step!(watch.step, 0, watch.degree, cache, problem, state)
    none, s = watch.takes_loss ? (0.0, at_end ? 1.0 : 0.0) : look_inside(watch, problem, state, before, watch.before)
    s > 0 || return 0.0
    at_end && watch.takes_loss && interpolate_step!(watch.step, 0, watch.degree, cache, problem, state)
    for _ in 1:60
        middle = (s + none) / 2
        t = state.t + middle * state.h
        none < middle < s && state.t + none * state.h < t < state.t + s * state.h || break
        if happened(watch, before, event_inside(watch, problem, state, middle))
            s = middle
        else
            none = middle
        end
    end
    if s < 1
        evaluate_step!(watch.x, watch.step, 0, watch.degree, T(s))
        scale!(state.ynew, problem, watch.x)
    end
    value_and_gradient_at!(state.gnew, problem, state.ynew)
    state.lossnew, state.gnormnew = problem.value[], problem.gnorm
    state.h *= s
    return s
end
