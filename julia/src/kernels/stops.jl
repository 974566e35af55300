"""
    Stop

Why a solver stopped: the values of `Stop.Reason`, and [`advice`](@ref), a sentence for each that says
what it means and what to do about it.
"""
module Stop

@enum(Reason, running, min_gnorm, minloss, roundoff, patience, maxtime, maxiterations, maxT, interrupted,
      diverged, callback, event)

const ADVICE = Dict(
    running => "The solver has not stopped.",
    min_gnorm => "The largest component of the gradient fell below min_gnorm: this is a fixed point at that accuracy.",
    minloss => "The loss fell below minloss.",
    roundoff => "Neither loss nor gradient can be lowered further in this number type: the run has converged to " *
                "round-off.",
    patience => "Next to no progress any more, though rounding allows it: continue with another solver or a larger " *
                "patience.",
    maxtime => "The time limit was reached: continue from the result, or allow more time.",
    maxiterations => "The iteration limit was reached: continue from the result, or allow more iterations.",
    maxT => "The flow was integrated up to maxT.",
    interrupted => "Interrupted by the user: the best point so far is returned and can be continued.",
    diverged => "The loss or a parameter is no longer finite, or the step size fell below the resolution of t: " *
                "the best point so far is returned; try a smaller tolerance or other initial parameters.",
    callback => "The callback asked to stop.",
    event => "The event happened: the result is the point of the flow where it did.",
)

"""
    advice(reason::Stop.Reason) -> String

One sentence: what `reason` means and what can be done next.
"""
advice(reason::Reason) = ADVICE[reason]

end # module Stop

"""
    Monitor(f = nothing; interval = 0.05)

The solvers' window to the outside. Every solver calls `poll!` once per accepted step; at most every
`interval` seconds (and once at the first call) that calls
`f(phase, iteration, t, loss, gnorm, x) -> Stop.Reason`. Anything but `Stop.running` ends the solve.
`Monitor()` never stops anything but an evaluation that goes on long after the time limit of its solver.
"""
mutable struct Monitor
    report::Any
    interval::Float64
    last::Float64       # report by poll!
    beat::Float64       # report by heartbeat, which must not starve poll!
    start::Float64
    deadline::Float64   # an evaluation that goes on is given up
    polled::Int         # the iteration that was last reported
end
Monitor(f=nothing; interval=0.05) = Monitor(f, interval, -Inf, -Inf, seconds(), Inf, -1)

# How long, in seconds, a step may go on beyond its solver's time limit; most steps are done by then.
const GRACE = 0.5
const HEARTBEAT = 0.05

"Seconds on a clock that never runs backwards."
seconds() = time_ns() * 1e-9

"Restart the clock of `monitor`: the solver begins now and may take `maxtime` seconds."
function start!(monitor::Monitor, maxtime=Inf)
    monitor.start = monitor.beat = seconds()
    monitor.deadline = monitor.start + maxtime + GRACE
    monitor.last = -Inf
    monitor.polled = -1
    return monitor
end

"Seconds since the solver began."
elapsed(monitor::Monitor) = seconds() - monitor.start

"""
    poll!(monitor, phase, iteration, t, loss, gnorm, x) -> Stop.Reason

Let the outside see where the solver is and ask it to stop; `Stop.running` means go on. `x` is only
valid during the call.
"""
function poll!(monitor::Monitor, phase::Symbol, iteration::Integer, t::Real, loss::Real, gnorm::Real, x)
    monitor.report === nothing && return Stop.running
    now = seconds()
    now - monitor.last < monitor.interval && return Stop.running
    monitor.last = monitor.beat = now
    monitor.polled = iteration
    return monitor.report(phase, Int(iteration), Float64(t), Float64(loss), Float64(gnorm), x)::Stop.Reason
end

"Thrown inside an evaluation when the outside asked to stop; solvers catch it and return their best point."
struct Interrupted <: Exception
    reason::Stop.Reason
end

"""
    heartbeat(monitor)

Called between blocks of samples, so that a long evaluation can be interrupted: throws `Interrupted` when the
outside asks to stop, or when the time limit has long passed.
"""
function heartbeat(monitor::Monitor)
    now = seconds()
    now > monitor.deadline && throw(Interrupted(Stop.maxtime))
    monitor.report === nothing && return nothing
    now - monitor.beat < max(monitor.interval, HEARTBEAT) && return nothing
    monitor.beat = now
    reason = monitor.report(:evaluation, 0, 0.0, 0.0, 0.0, nothing)::Stop.Reason
    reason == Stop.running || throw(Interrupted(reason))
    return nothing
end
heartbeat(::Nothing) = nothing

"Let evaluations of `net` beat for `monitor`; `nothing` ends that."
watch!(net, monitor) = nothing

"`f()` while evaluations of `net` beat for `monitor`."
function watching(f, net, monitor::Monitor)
    watch!(net, monitor)
    try
        return f()
    finally
        watch!(net, nothing)
    end
end

"""
    last_poll!(monitor, phase, iteration, t, loss, gnorm, x) -> Stop.Reason

Solvers do not poll after the step that ends them: whoever wants to see every step (interval 0) gets it here.
"""
function last_poll!(monitor::Monitor, phase::Symbol, iteration::Int, t, loss, gnorm, x)
    (monitor.interval > 0 || monitor.polled == iteration) && return Stop.running
    return poll!(monitor, phase, iteration, t, loss, gnorm, x)
end
