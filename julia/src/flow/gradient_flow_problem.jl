"""
    GradientFlowProblem(net, x0; options...)

The gradient flow of `net` from the parameters `x0`, with options of [`FlowOptions`](@ref), as a problem for
CommonSolve's functions. Where CommonSolve is loaded, as it is with every package of SciML:

- `solve(problem, alg; options...)` is `flow(net, x0; alg, options...)`, a [`FlowResult`](@ref); `alg` is `Auto()` by
  default, and options given to `solve` go before those of the problem.
- `init(problem, alg; options...)` is the same flow at its start, with the fields `x`, `loss`, `gnorm`, `t` and
  `iterations` of the last accepted point, and `result`, which is `nothing` until the flow has ended. `step!(steps)`
  makes an accepted step, `step!(steps, dt)` as many as lead over `dt` of time, `solve!(steps)` all that are left.
  `maxtime` counts the time between steps, too.

Without CommonSolve there is `flow(problem; options...)`.

# Example
    using CommonSolve: init, step!, solve!
    steps = init(GradientFlowProblem(net, x0; maxT = 100), Rodas5P())
    step!(steps)
    steps.t, steps.loss
    res = solve!(steps)
"""
struct GradientFlowProblem{N<:AbstractNet,V<:AbstractVector,O<:NamedTuple}
    net::N
    x0::V
    options::O
end
function GradientFlowProblem(net::AbstractNet, x0::AbstractVector; options...)
    length(x0) == n_params(net) ||
        throw(DimensionMismatch("x0 has length $(length(x0)), the net has $(n_params(net)) parameters."))
    FlowOptions(; options...)            # names and types are checked here
    return GradientFlowProblem(net, x0, values(options))
end

flow(problem::GradientFlowProblem; options...) = flow(problem.net, problem.x0; problem.options..., options...)
