# A user's condition that ends a flow, located on the interpolant of the step in which it came to hold.

"""
    EventWatch(condition, T, n, degree)

`condition(t, x)` or `condition(t, x, loss, gnorm)`. One that returns `Bool` happens when it becomes true (or holds at
the start); one that returns a number when the number reaches zero or changes its sign. It is looked at after every
accepted step: what comes and goes within a step is not seen.
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

"Whether the flow is over before it began."
function holds_at_start!(watch::EventWatch, x, loss, gnorm)
    watch.before = event_value(watch, 0.0, x, loss, gnorm)
    return watch.boolean && watch.before > 0
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
    happened(watch, before, watch.before) || return 0.0
    interpolate_step!(watch.step, 0, watch.degree, cache, problem, state)
    s, none = 1.0, 0.0
    for _ in 1:50
        middle = (s + none) / 2
        t = state.t + middle * state.h
        none < middle < s && state.t + none * state.h < t < state.t + s * state.h || break
        evaluate_step!(watch.x, watch.step, 0, watch.degree, T(middle))
        loss, gnorm = zero(T), 0.0
        if watch.takes_loss
            scale!(state.err, problem, watch.x)
            value_and_gradient_at!(state.gnew, problem, state.err)
            loss, gnorm = problem.value[], problem.gnorm
        end
        if happened(watch, before, event_value(watch, t, watch.x, loss, gnorm))
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
