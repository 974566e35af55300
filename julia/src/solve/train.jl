"""
    TrainResult{T}

What [`train`](@ref) found: the best point `x`, its `loss` and `gnorm` (‖∇L‖_∞), the start `init`, the two phases
`ode` (a `FlowResult`) and `optim` (a `MinimizeResult`, or `nothing` when the flow was interrupted or diverged),
and `total_time` in seconds.
"""
struct TrainResult{T<:AbstractFloat,F,M}
    x::Vector{T}
    loss::T
    gnorm::Float64
    init::Vector{T}
    ode::F
    optim::M
    total_time::Float64
end

Base.show(io::IO, r::TrainResult) =
    print(io, "TrainResult(loss = ", r.loss, ", gnorm = ", r.gnorm, "; flow: ", r.ode.stopped_by,
          r.optim === nothing ? "" : ", minimize: $(r.optim.stopped_by)", ")")

"Seconds for each phase of a [`train`](@ref), and for a `flow` or a `minimize` from Python."
const PHASE_LIMITS = (maxtime_ode=180.0, maxtime_optim=120.0)

"What an option of one phase is called beside those of the other: `maxtime` of a flow is `maxtime_ode`."
function phase_name(::Type{O}, name::Symbol) where {O}
    name in (:maxtime, :maxiterations) || return name
    return O === FlowOptions ? Symbol(name, :_ode) : Symbol(name, :_optim)
end

"The options of one phase from those of both; what they do not name has its default."
function phase_options(::Type{O}, options) where {O}
    default = O()
    values = Any[]
    for name in fieldnames(O)
        given = phase_name(O, name)::Symbol
        push!(values, convert(fieldtype(O, name), haskey(options, given) ? options[given] : getfield(default, name)))
    end
    return made(O, values)
end

"""
    train(net, x0; monitor = Monitor(), options...) -> TrainResult

[`flow`](@ref) from `x0`, then [`minimize`](@ref) from where the flow ended; the trajectory of the flow ends with the
best point of both, a unit of time after its end. `options` are those of [`FlowOptions`](@ref) and
[`MinimizeOptions`](@ref), with the limits called `maxtime_ode`, `maxiterations_ode`, `maxtime_optim` and
`maxiterations_optim`; `MLPGF.PHASE_LIMITS` are their defaults. `min_gnorm` and `minloss` stop either phase; an
interrupted or diverged flow is not continued.
"""
function train(net::AbstractNet, x0::AbstractVector; monitor::Monitor=Monitor(), options...)
    known = [phase_name(O, name) for O in (FlowOptions, MinimizeOptions) for name in fieldnames(O)]
    for name in keys(options)
        name in known ||
            throw(ArgumentError("train has no option $name; known are $(join(sort!(unique(known)), ", "))"))
    end
    given = merge(PHASE_LIMITS, values(options))
    return train(net, x0, phase_options(FlowOptions, given), phase_options(MinimizeOptions, given), monitor)
end

function train(net::AbstractNet{T}, x0, flow_options::FlowOptions, minimize_options::MinimizeOptions,
               monitor::Monitor) where {T}
    start = seconds()
    ode = flow(net, x0, flow_options, monitor)
    asked = last_poll!(monitor, :flow, ode.iterations, ode.t, ode.loss, ode.gnorm, ode.x)
    goes_on = asked == Stop.running && !(ode.stopped_by in (Stop.interrupted, Stop.callback, Stop.diverged))
    optim = goes_on ? minimize(net, ode.x, minimize_options, monitor) : nothing
    optim === nothing ||
        last_poll!(monitor, :minimize, optim.iterations, optim.time_run, optim.loss, optim.gnorm, optim.x)
    best = lowest(optim === nothing ? ode : optim, ode.best)
    if optim !== nothing && ode.trajectory.x[:, end] != best.x
        t = ode.t + max(1.0, eps(ode.t))
        last = Trajectory([t], reshape(copy(best.x), :, 1), T[best.loss], [Float64(best.gnorm)])
        last = observe(last, flow_options.observables, monitor, optim.stopped_by)
        ode = changed(ode; trajectory=[ode.trajectory; last])
    end
    return TrainResult(best.x, best.loss, Float64(best.gnorm), convert(Vector{T}, x0), ode, optim, seconds() - start)
end

lowest(a, ::Nothing) = a
lowest(a, b) = a.loss <= b.loss ? a : b
