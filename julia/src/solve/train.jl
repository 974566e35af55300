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

"""
    train(net, x0; alg = Auto(), maxT = Inf, abstol = 1e-6, reltol = 1e-6, maxtime_ode = 180, maxiterations_ode,
          tauinv = 1, dt, dense, save_everystep, n_samples_trajectory, event, observables, batchsize, seed,
          optim_solver = NewtonTrustRegion(),
          maxtime_optim = 120, maxiterations_optim, patience, min_gnorm = 0, minloss = 0,
          monitor = Monitor()) -> TrainResult

[`flow`](@ref) from `x0`, then [`minimize`](@ref) from where the flow ended. `min_gnorm` and `minloss` stop
either phase; an interrupted or diverged flow is not continued.
"""
function train(net::AbstractNet, x0::AbstractVector; alg=Auto(), maxT=Inf, abstol=1e-6, reltol=1e-6, maxtime_ode=180,
               maxiterations_ode=Inf, tauinv=1, dt=nothing, dense=false, save_everystep=false,
               n_samples_trajectory=100, event=nothing, observables=(), batchsize=nothing, seed=0, optim_solver=NewtonTrustRegion(), maxtime_optim=120,
               maxiterations_optim=Inf, patience=10_000, min_gnorm=0, minloss=0, monitor=Monitor())
    return train(net, x0,
        (alg=alg, maxT=maxT, abstol=abstol, reltol=reltol, maxtime=maxtime_ode, maxiterations=maxiterations_ode,
         min_gnorm=min_gnorm, minloss=minloss, tauinv=tauinv, dt=dt, dense=dense, save_everystep=save_everystep,
         n_samples_trajectory=n_samples_trajectory, event=event, observables=observables, batchsize=batchsize, seed=seed),
        (optim_solver=optim_solver, maxtime=maxtime_optim, maxiterations=maxiterations_optim, min_gnorm=min_gnorm,
         minloss=minloss, patience=patience), monitor)
end

function train(net::AbstractNet{T}, x0, flow_options::NamedTuple, minimize_options::NamedTuple, monitor::Monitor) where {T}
    start = seconds()
    ode = flow(net, x0; flow_options..., monitor=monitor)
    asked = last_poll!(monitor, :flow, ode.iterations, ode.t, ode.loss, ode.gnorm, ode.x)
    goes_on = asked == Stop.running && !(ode.stopped_by in (Stop.interrupted, Stop.callback, Stop.diverged))
    optim = goes_on ? minimize(net, ode.x; minimize_options..., monitor=monitor) : nothing
    optim === nothing || last_poll!(monitor, :minimize, optim.iterations, optim.time_run, optim.loss, optim.gnorm, optim.x)
    best = lowest(optim === nothing ? ode : optim, ode.best)
    return TrainResult(best.x, best.loss, Float64(best.gnorm), convert(Vector{T}, x0), ode, optim, seconds() - start)
end

lowest(a, ::Nothing) = a
lowest(a, b) = a.loss <= b.loss ? a : b
