# What a minimisation can be told: the only home of its defaults.

"""
    MinimizeOptions(; options...)

The options of [`minimize`](@ref), all of them with defaults:

- `optim_solver`: a method by its constructor, see `MLPGF.MINIMIZE_METHODS`; or, where the package is loaded (Julia 1.9
  and newer), a method of Optim such as `Optim.Newton()`, or an algorithm of NLopt that uses gradients, such as
  `NLopt.LD_SLSQP`
- `maxtime`: seconds. `maxiterations`: trial steps of the trust-region and projection methods, line searches of the
  others; `NewtonLBFGS` counts both.
- `min_gnorm`: stop when ‖∇L‖_∞ is at most this. Newton's methods go on all the same where the Hessian is
  clearly indefinite, since such a point is a saddle.
- `minloss`: stop when the loss is at most this, if it is positive.
- `constraint`: a [`Constraint`](@ref) that the parameters obey, from the nearest point to the start that does
- `optim_options`: options of Optim's or NLopt's own, names and values, such as `(store_trace = true,)` for a method of
  Optim or `(xtol_rel = 1e-6,)` for one of NLopt. Where these end the run, it is `Stop.patience`.
- `patience`: stop after so many iterations without a lower loss or gradient norm than ever before.
- `optim_memory`: the `memory` of the result of a run that a limit ended, with the same method and options, from which
  this one goes on as if that had not ended
"""
Base.@kwdef struct MinimizeOptions
    optim_solver::Any = AutoMinimizer()
    maxtime::Float64 = Inf
    maxiterations::Float64 = Inf
    min_gnorm::Real = 0.0           # of whatever precision the net has
    minloss::Real = 0.0
    patience::Float64 = 10_000.0
    constraint::Union{Nothing,Constraint} = nothing
    optim_options::Any = NamedTuple()
    optim_memory::Union{Nothing,Vector{Float64}} = nothing
end
