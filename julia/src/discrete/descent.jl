# The loop that all discrete methods share: evaluations, stops, best point, trajectory.

"""
    Descent(net, method, x0, options)

Where a descent is. `x` has made `clock.step` steps; the point `seen` is the last one whose loss on all samples is
known, and `best` the lowest of these.
"""
Base.@kwdef mutable struct Descent{T<:AbstractFloat}
    net::AbstractNet{T}
    batches::Union{Nothing,Batches{T}}
    rates::Vector{T}
    clock::Clock
    x::Vector{T}
    g::Vector{T} = zero(x)
    value::Base.RefValue{T} = Ref(zero(eltype(x)))
    seen::Vector{T} = copy(x)
    seen_step::Int = 0
    t::Float64 = 0
    loss::T = NaN
    gnorm::Float64 = NaN
    best::Vector{T} = copy(x)
    best_loss::T = Inf
    best_gnorm::Float64 = Inf
    nfev::Int = 0
end

function Descent(net::AbstractNet{T}, method::DiscreteMethod, x0::Vector{T}, options::FlowOptions) where {T}
    n, tauinv = n_params(net)::Int, options.tauinv
    rates = tauinv isa Real ? fill(T(tauinv), n) : Vector{T}(tauinv)
    batches = make_batches(net, options.batchsize, options.seed, options.shuffle)
    return Descent{T}(net=net, batches=batches, rates=rates, clock=Clock(method), x=copy(x0))
end

"Loss and gradient of all samples; false, and nothing else changes, if they are not finite."
function evaluate!(d::Descent)
    d.nfev += 1
    unknown(value_and_gradient_into!)(d.value, d.g, d.net, d.x)
    gnorm = finite_maximum(d.g)
    isfinite(d.value[]) && isfinite(gnorm) || return false
    d.loss, d.gnorm, d.t, d.seen_step = d.value[], gnorm, d.clock.t, d.clock.step
    copyto!(d.seen, d.x)
    if d.loss < d.best_loss
        d.best_loss, d.best_gnorm = d.loss, d.gnorm
        copyto!(d.best, d.x)
    end
    return true
end

"""
With batches, all samples are seen once an epoch, and after 16 epochs each time the number of steps has grown by a
sixteenth: never the larger part of the work, and soon a small one.
"""
function due(d::Descent)
    d.batches === nothing && return true
    since = d.clock.step - d.seen_step
    return since * d.batches.size >= length(d.batches.order) && 16 * since >= d.clock.before + d.seen_step
end

"One step from `d.x`; false if the batch has no finite gradient."
function advance!(d::Descent, @nospecialize(method::DiscreteMethod), @nospecialize(state))
    if d.batches !== nothing
        d.nfev += 1
        unknown(value_and_gradient_into!)(d.value, d.g, next!(d.batches), d.x)
        isfinite(d.value[]) && isfinite(finite_maximum(d.g)) || return false
    end
    set_rate!(d.clock, method.schedule)
    step!(state, d.x, d.g, d.rates, d.clock)
    d.clock.step += 1
    return true
end

"What ends a descent that could go on."
const LIMITS = (Stop.maxT, Stop.maxiterations, Stop.maxtime)

"""
    remembered(descent, state) -> numbers
    recall!(descent, state, numbers)

What a later descent needs to go on as if there had been no end: the number of steps, where the batches are, and what
the method remembers. The number of steps alone will do too: the others then begin anew.
"""
remembered(d::Descent, @nospecialize(state)) =
    Float64[total(d.clock); remembered(d.batches); remembered(state)::Vector{Float64}]
function recall!(d::Descent, @nospecialize(state), numbers::Vector{Float64})
    of_batches, of_state = length(remembered(d.batches)), length(remembered(state)::Vector{Float64})
    length(numbers) in (1, 1 + of_batches + of_state) ||
        throw(ArgumentError("memory has $(length(numbers)) numbers, $(1 + of_batches + of_state) are needed: it is " *
                            "that of a run with the same method, batches and number of parameters"))
    d.clock.before = numbers[1]
    length(numbers) == 1 && return nothing
    recall!(d.batches, numbers[2:1+of_batches])
    recall!(state, numbers[2+of_batches:end])
    return nothing
end

"""
Steps of gradient descent and its relatives: [`flow`](@ref) with a [`DiscreteMethod`](@ref). `maxT` ends it at the first
step that reaches it.
"""
function descend(d::Descent{T}, @nospecialize(method::DiscreteMethod), limits::FlowOptions, monitor::Monitor) where {T}
    event = limits.event
    start!(monitor, limits.maxtime)
    d.batches === nothing || watch!(d.batches.net, monitor)
    state = make_state(method, T, length(d.x))
    limits.memory === nothing || recall!(d, state, limits.memory)
    recorder = Recorder(T, length(d.x), recorded(limits, length(d.x)))
    watch = event === nothing ? nothing : EventWatch(event, T, length(d.x), 0)::EventWatch{T}
    reason = Stop.running
    try
        reason = evaluate!(d) ? Stop.running : Stop.diverged
        record!(recorder, 0.0, d.x, reason == Stop.running ? d.loss : d.value[], d.gnorm)
        reason == Stop.running && (reason = descent_finished(d, limits, monitor))
        reason == Stop.running && (reason = poll!(monitor, :flow, 0, 0.0, Float64(d.loss), d.gnorm, d.x))
        reason == Stop.running && watch !== nothing && holds_at_start!(watch, d.x, d.loss, d.gnorm) &&
            (reason = Stop.event)
        mark = copy(d.x)             # where it was WINDOW steps ago
        while reason == Stop.running
            if !advance!(d, method, state)
                reason = Stop.diverged
                break
            end
            if limits.save_everystep || due(d)
                if !evaluate!(d)
                    reason = Stop.diverged
                    break
                end
                record!(recorder, d.t, d.x, d.loss, d.gnorm)
            end
            reason = watch !== nothing && occurs!(watch, d) ? Stop.event : descent_finished(d, limits, monitor)
            if reason == Stop.running && d.batches === nothing && d.clock.step % WINDOW == 0
                stands_still(d.x, mark) && (reason = Stop.roundoff)
                copyto!(mark, d.x)
            end
            reason == Stop.running &&
                (reason = poll!(monitor, :flow, d.clock.step, d.clock.t, Float64(d.loss), d.gnorm, d.x))
        end
        # All samples at the last point, if they were not seen there. Where that takes longer than GRACE, or than a
        # beat when the outside asked to stop, the last point that was seen is the result.
        if d.seen_step < d.clock.step && reason != Stop.diverged
            monitor.beat = seconds()
            monitor.deadline = monitor.beat + GRACE
            evaluate!(d) ? record!(recorder, d.t, d.x, d.loss, d.gnorm) : (reason = Stop.diverged)
        end
    catch interruption
        interruption isa Interrupted || rethrow()
        reason == Stop.running && (reason = interruption.reason)
        recorder.count == 0 && record!(recorder, 0.0, d.x, d.loss, d.gnorm)
    end
    best = isfinite(d.best_loss) ? LowestPoint{T}(d.best, d.best_loss, d.best_gnorm) : nothing
    memory = reason in LIMITS && d.seen_step == d.clock.step ? remembered(d, state) : nothing
    time_run = elapsed(monitor)
    trajectory = observe(Trajectory(recorder), limits.observables, monitor, reason)
    return FlowResult{T}(x=d.seen, loss=d.loss, gnorm=d.gnorm, t=d.t, stopped_by=reason, iterations=d.seen_step,
                         nfev=d.nfev, time_run=time_run, alg=method_name(method)::String, trajectory=trajectory,
                         best=best, memory=memory)
end

"Whether the event happened in the last step; between steps there is nothing to locate it on."
function occurs!(watch::EventWatch, d::Descent)
    before = watch.before
    watch.before = event_value(watch, d.clock.t, d.x, d.loss, d.gnorm)
    return happened(watch, before, watch.before)
end

function descent_finished(d::Descent, limits::FlowOptions, monitor::Monitor)
    if d.seen_step == d.clock.step
        d.gnorm <= limits.min_gnorm && return Stop.min_gnorm
        limits.minloss > 0 && d.loss <= limits.minloss && return Stop.minloss
    end
    # The clock is a sum of many numbers.
    d.clock.t >= limits.maxT * (1 - 1e-12) - 1e-6 * d.clock.rate && return Stop.maxT
    d.clock.step >= limits.maxiterations && return Stop.maxiterations
    elapsed(monitor) >= limits.maxtime && return Stop.maxtime
    return Stop.running
end

"Has nothing moved beyond round-off?"
function stands_still(x::Vector{T}, mark::Vector{T}) where {T}
    @inbounds for i in eachindex(x)
        abs(x[i] - mark[i]) <= 4 * eps(T) * abs(x[i]) || return false
    end
    return true
end
