"""
    BatchFlow(method, options)

A flow on one batch after the other: each is followed for `options.batch_steps` accepted steps of `method`, which is
what [`descend`](@ref) takes for a step. Time is that of the flow.
"""
struct BatchFlow <: DiscreteMethod
    method::FlowMethod
    options::FlowOptions
end

Clock(::BatchFlow) = Clock(0.0)
make_state(::BatchFlow, ::Type, n) = DescentState()
method_name(m::BatchFlow) = string(m.method isa Auto ? "auto" : nameof(typeof(m.method)), " on batches")

function advance!(d::Descent{T}, m::BatchFlow, @nospecialize(state)) where {T<:AbstractFloat}
    o = m.options
    net = d.batches === nothing ? d.net : next!(d.batches)
    batch = FlowOptions(alg=m.method, maxT=max(o.maxT - d.clock.t, 0.0), abstol=o.abstol, reltol=o.reltol, dt=o.dt,
                        maxiterations=o.batch_steps, tauinv=d.rates, n_samples_trajectory=2)
    r = flow(net, d.x, batch, Monitor())::FlowResult{T}
    d.nfev += r.nfev
    r.stopped_by == Stop.diverged && return false
    copyto!(d.x, r.x)
    d.clock.t += r.t
    d.clock.step += 1
    return true
end
