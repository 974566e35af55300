# What a flow can be told: the only home of its defaults.

"""
    FlowOptions(; options...)

The options of [`flow`](@ref), all of them with defaults:

- `alg`: a method by its constructor, see `MLPGF.FLOW_METHODS`; or a discrete one such as [`Adam`](@ref), whose
  docstring says what its time is; or an algorithm of OrdinaryDiffEq or Sundials, such as `KenCarp58()`, on Julia 1.9
  and newer, where the package that it comes from is loaded
- `maxT`: the final time
- `abstol`, `reltol`: bounds on the root mean square over parameters of the error of a step relative to
  `abstol + reltol * |x|`. A `reltol` below `10 eps(T)` is raised to that.
- `maxtime`: seconds; `maxiterations`: accepted steps
- `min_gnorm`: stop when ‖∇L‖_∞ ≤ `min_gnorm`; `minloss`: stop when the loss is ≤ `minloss`, if that is positive
- `tauinv`: a number or P numbers ≥ 0; zero freezes a parameter (its gradient does not count for `min_gnorm`)
- `constraint`: a [`Constraint`](@ref) that the parameters obey, from the nearest point to the start that does
- `dt`: first step, chosen from the data by default
- `dense`: keep the whole flow as a [`DenseSolution`](@ref)
- `save_everystep`, `n_samples_trajectory`: keep every accepted point, or at most this many, the first and last among
  them: those without which straight lines in log t between the others would be off by more than 5 % at a step, if so
  many are enough (see [`Recorder`](@ref)); the trajectory's `within` says by how much they are. By default as many as
  are needed, 100 at least and 10 000 at most, fewer if they have more than 262 144 numbers in all; 100 with
  `observables`
- `event`: a function of `(t, x)` or of `(t, x, loss, gnorm)` that ends the flow, with `Stop.event`, at the time when it
  becomes true, or, if it returns a number, when that reaches zero or changes its sign. It is looked at after every
  step and located on the interpolant; `x` is only lent.
- `observables`: pairs `name => f`, such as `["test loss" => x -> loss(test_net, x)]`, each `f` a function of x that
  returns a number, or a vector whose entries are called `name[1]` and so on: recorded at the points of the trajectory,
  `res.trajectory["test loss"]`. See [`Recording`](@ref) for those that are there already.
- `batchsize`, `seed`, `shuffle`: a discrete method sees so many samples a step, or all of them; in an order that is
  drawn anew each epoch or, without `shuffle`, in that of the data. A flow follows the loss of one batch for
  `batch_steps` accepted steps, then that of the next; `maxiterations` counts batches then. Loss and gradient norm of
  all samples are known, and points recorded, about once an epoch; with `save_everystep` at every step
- `memory`: that of the result of a descent, from whose `x` this one goes on as if it had not ended
"""
Base.@kwdef struct FlowOptions
    alg::Any = Auto()
    maxT::Float64 = Inf
    abstol::Float64 = 1e-6
    reltol::Float64 = 1e-6
    maxtime::Float64 = Inf
    maxiterations::Float64 = Inf
    min_gnorm::Float64 = 0.0
    minloss::Float64 = 0.0
    tauinv::Any = 1.0
    constraint::Union{Nothing,Constraint} = nothing
    dt::Union{Nothing,Float64} = nothing
    dense::Bool = false
    save_everystep::Bool = false
    n_samples_trajectory::Union{Nothing,Int} = nothing
    event::Any = nothing
    observables::Any = ()
    batchsize::Union{Nothing,Int} = nothing
    seed::UInt64 = 0
    shuffle::Bool = true
    batch_steps::Int = 10
    memory::Union{Nothing,Vector{Float64}} = nothing
end

"The same options, or result, but for these fields."
function changed(old::O; new...) where {O}
    new = values(new)
    fields = Any[convert(fieldtype(O, name), get(new, name, getfield(old, name))) for name in fieldnames(O)]
    return made(O, fields)
end

"A struct of these fields. Its constructor would be compiled for every combination of types that they have."
made(::Type{O}, fields::Vector{Any}) where {O} =
    ccall(:jl_new_structv, Any, (Any, Ptr{Any}, UInt32), O, fields, length(fields))::O

"""
How many points of `n` parameters a trajectory keeps, if there are so many: this many at least, even if fewer tell all,
and that many at most, of which zero is all. By default it follows the gradient norm of stiff methods, which jumps from
step to step, as long as a file of it is small (2 MiB); an observable, at every point, may cost any time.
"""
function recorded(options::FlowOptions, n::Int)
    options.save_everystep && return 0, 0
    samples = options.n_samples_trajectory
    samples === nothing || return max(2, samples), max(2, samples)
    return 100, isempty(options.observables)::Bool ? clamp(div(2^18, max(n, 1)), 100, 10_000) : 100
end
