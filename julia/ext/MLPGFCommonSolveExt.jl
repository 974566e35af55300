"""
CommonSolve's functions for a [`GradientFlowProblem`](@ref). A flow that is made step by step is a task of its own,
which waits in its monitor while the caller has a look.
"""
module MLPGFCommonSolveExt

using MLPGF
import CommonSolve
import MLPGF: AbstractNet, FlowResult, GradientFlowProblem, Monitor, Stop

CommonSolve.solve(problem::GradientFlowProblem, alg=Auto(); options...) = flow(problem; alg=alg, options...)

mutable struct FlowSteps{T<:AbstractFloat}
    x::Vector{T}
    loss::T
    gnorm::Float64
    t::Float64
    iterations::Int
    result::Union{Nothing,FlowResult{T}}
    net::AbstractNet{T}
    monitor::Monitor
    go::Channel{Nothing}          # the caller wants a step
    pause::Channel{Nothing}       # a step has been made; closed at the end of the flow
end

Base.show(io::IO, s::FlowSteps) =
    print(io, "FlowSteps(loss = ", s.loss, ", gnorm = ", s.gnorm, ", t = ", s.t, ", ", s.iterations, " steps",
          s.result === nothing ? "" : ", $(s.result.stopped_by)", ")")

CommonSolve.init(problem::GradientFlowProblem, alg=Auto(); options...) =
    first_pause(problem.net, problem, alg; options...)

function first_pause(net::AbstractNet{T}, problem, alg; monitor::Monitor=Monitor(), options...) where {T}
    steps = FlowSteps{T}(Vector{T}(problem.x0), NaN, NaN, 0.0, -1, nothing, net, Monitor(nothing; interval=0.0),
                         Channel{Nothing}(0), Channel{Nothing}(0))
    steps.monitor.report = (phase, iteration, t, loss, gnorm, x) -> begin
        asked = monitor.report === nothing ? Stop.running :
                monitor.report(phase, iteration, t, loss, gnorm, x)::Stop.Reason
        if phase == :flow && asked == Stop.running && iteration > steps.iterations
            copyto!(steps.x, x)
            steps.loss, steps.gnorm, steps.t, steps.iterations = loss, gnorm, t, iteration
            put!(steps.pause, nothing)
            take!(steps.go)
        end
        asked
    end
    task = Task() do
        take!(steps.go)
        steps.result = flow(problem; alg=alg, options..., monitor=steps.monitor)
    end
    bind(steps.pause, task)
    schedule(task)
    return go_on!(steps)
end

"Let the flow run until it pauses or ends."
function go_on!(steps::FlowSteps)
    put!(steps.go, nothing)
    try
        iterate(steps.pause)
    catch failure
        throw(failure isa TaskFailedException ? failure.task.exception : failure)
    end
    # What the caller evaluates meanwhile has nothing to do with the flow's limits; its result ends the watch by itself.
    MLPGF.watch!(steps.net, nothing)
    result = steps.result
    if result !== nothing
        steps.x, steps.loss, steps.gnorm, steps.t = copy(result.x), result.loss, result.gnorm, result.t
        steps.iterations = result.iterations
    end
    return steps
end

function CommonSolve.step!(steps::FlowSteps)
    steps.result === nothing || return steps
    MLPGF.watch!(steps.net, steps.monitor)
    return go_on!(steps)
end

function CommonSolve.step!(steps::FlowSteps, dt::Real)
    dt > 0 || throw(ArgumentError("dt = $dt: a positive time is needed"))
    t_end = steps.t + dt
    while steps.t < t_end && steps.result === nothing
        CommonSolve.step!(steps)
    end
    return steps
end

function CommonSolve.solve!(steps::FlowSteps)
    while steps.result === nothing
        CommonSolve.step!(steps)
    end
    return steps.result
end

end
