# The loop that all minimizers share: stops, best point, trace.

Base.@kwdef mutable struct BestPoint{T<:AbstractFloat}
    x::Vector{T}
    loss::T = NaN
    gnorm::T = NaN
    lowest_loss::T = Inf
    lowest_gnorm::T = Inf
end

"Remember the point if it is the best so far; true if loss or gradient norm is the lowest seen."
function offer!(best::BestPoint{T}, x::Vector{T}, loss::T, gnorm::T) where {T}
    isfinite(loss) && isfinite(gnorm) || return false
    progress = loss < best.lowest_loss || gnorm < best.lowest_gnorm
    best.lowest_loss = min(best.lowest_loss, loss)
    best.lowest_gnorm = min(best.lowest_gnorm, gnorm)
    if worse(best.loss, loss) || (!worse(loss, best.lowest_loss) && gnorm < best.gnorm)
        copyto!(best.x, x)
        best.loss = loss
        best.gnorm = gnorm
    end
    return progress
end

"""
    minimize(net, x0; monitor = Monitor(), options...) -> MinimizeResult

Minimise the loss of `net` from the parameters `x0` (length P, left as they are). `options` are those of
[`MinimizeOptions`](@ref); the `monitor` is polled once per iteration.

With the default limits it ends at `Stop.roundoff`, where neither loss nor gradient norm can be lowered in this number
type. No method's own word is taken for that: where it sees no way on, Newton steps or another method are tried, and it
goes on from what they find ([`confirm!`](@ref)); what hardly gets on though rounding allows it ends at `Stop.patience`.
The result holds the best point seen: the lowest loss, and among losses that differ by rounding only, the lowest
gradient norm.

```julia
result = minimize(net, x0; maxtime = 10)
result.loss, result.gnorm, result.stopped_by
```
"""
minimize(net::AbstractNet, x0::AbstractVector; monitor::Monitor=Monitor(), options...) =
    minimize(net, x0, MinimizeOptions(; options...), monitor)

function minimize(net::AbstractNet{T}, x0::AbstractVector, options::MinimizeOptions, monitor::Monitor) where {T}
    length(x0) == n_params(net) ||
        throw(DimensionMismatch("x0 has $(length(x0)) components, the net has $(n_params(net)) parameters."))
    o = options
    limits = Limits{T}(o.maxtime, o.maxiterations, T(o.min_gnorm)::T, T(o.minloss)::T, o.patience)
    check_setting("maxtime", o.maxtime, limits.maxtime >= 0)
    check_setting("maxiterations", o.maxiterations, limits.maxiterations >= 0)
    check_setting("min_gnorm", o.min_gnorm, limits.min_gnorm >= 0)
    check_setting("minloss", o.minloss, limits.minloss >= 0)
    o.patience >= 1 || throw(ArgumentError("patience = $(o.patience): must be at least 1."))
    o.constraint === nothing || return Base.invokelatest(constrained_minimize, net, x0, o, monitor)::MinimizeResult{T}
    held = held_scale(net, x0)
    held === nothing || return Base.invokelatest(minimize_held, net, held, x0, o, monitor)::MinimizeResult{T}
    method = with_options(minimize_method(o.optim_solver), o.optim_options)
    objective, x = Objective(net), Vector{T}(x0)
    return watching(() -> run_minimizer(objective, x, method, limits, monitor, o.optim_memory), net, monitor)
end

"The minimum of `held`, which is one of `net`, as that of `net`."
function minimize_held(net::Net{T}, held::Net{T}, x0, o::MinimizeOptions, monitor::Monitor) where {T}
    report = monitor.report
    report === nothing || (monitor.report = (phase, iteration, t, value, gnorm, x) ->
        report(phase, iteration, t, x === nothing ? value : Float64(loss(net, x)), gnorm, x))
    try
        r = minimize(held, x0, changed(o; optim_memory=nothing), monitor)
        gradient = zeros(T, length(r.x))
        value = value_and_gradient!(gradient, net, r.x)
        return changed(r; loss=value, gnorm=supnorm(gradient), memory=nothing)      # of another scale
    finally
        monitor.report = report
    end
end

constrained_minimize(net::AbstractNet, x0, o::MinimizeOptions, monitor::Monitor) =
    within(net, o.constraint, x0, monitor) do inner, z
        minimize(inner, z, changed(o; constraint=nothing), monitor)
    end

struct Limits{T<:AbstractFloat}
    maxtime::Float64
    maxiterations::Float64
    min_gnorm::T
    minloss::T
    patience::Float64
end

"What a run has found and how far it has come, whichever method is at work."
Base.@kwdef mutable struct Search{T<:AbstractFloat}
    best::BestPoint{T}
    trace::MinimizeTrace = MinimizeTrace()
    iteration::Int = 0
    limits::Limits{T}
    monitor::Monitor
    settled::Bool = false       # the method that ended last knows its point for an isolated minimum
    stage::Int = 1              # of "auto"; 0 where others are asked, −1 while they are at work
    rounds::Int = 0             # in which they were, without success
    counted::Int = 0            # evaluations of the run that this one goes on with
    recall::Union{Nothing,Vector{Float64}} = nothing
    memory::Union{Nothing,Vector{Float64}} = nothing
end

function run_minimizer(objective::Objective{T}, x0::Vector{T}, @nospecialize(method::MinimizeMethod),
                       limits::Limits{T}, monitor::Monitor, recall=nothing) where {T}
    start!(monitor, limits.maxtime)
    best = BestPoint{T}(x=copy(x0))
    search = Search{T}(best=best, limits=limits, monitor=monitor, recall=recall)
    stop = try
        asking = recall !== nothing && first(recall) == 0
        asking && unknown(recall!)(search, objective, nothing)
        reason = asking ? Stop.roundoff : unknown(pursue!)(search, objective, method, typemax(Int))::Stop.Reason
        reason == Stop.roundoff ? unknown(confirm!)(search, objective, method) : reason
    catch interruption
        interruption isa Interrupted || rethrow()
        interruption.reason
    end::Stop.Reason
    finish!(search.trace, search.iteration, best.loss, best.gnorm)
    return MinimizeResult{T}(x=best.x, loss=best.loss, gnorm=best.gnorm, stopped_by=stop, iterations=search.iteration,
                             nfev=objective.nfev - search.counted, njev=objective.njev, nhev=objective.nhev,
                             nhvp=objective.nhvp, time_run=elapsed(monitor),
                             optim_solver=method_name(method)::String, trace=search.trace,
                             memory=stop in (Stop.maxtime, Stop.maxiterations) ? search.memory : nothing)
end

"The first point of a run is its best so far; false if there is nothing to begin with."
function begin!(search::Search{T}, loss::T, gnorm::T) where {T}
    best = search.best
    if isnan(best.loss)
        best.loss = best.lowest_loss = loss
        best.gnorm = best.lowest_gnorm = gnorm
        record!(search.trace, 0, loss, gnorm)
    end
    return isfinite(loss) && isfinite(gnorm)
end

"""
    pursue!(search, objective, method, iterations) -> Stop.Reason

Search with `method` from the best point so far; `Stop.running` after so many iterations.
"""
pursue!(search::Search{T}, objective::Objective{T}, method::MinimizeMethod, iterations::Int) where {T} =
    unknown(iterate!)(unknown(make_state)(method, objective, search.best.x), search, objective, method,
                      iterations)::Stop.Reason

function iterate!(state, search::Search{T}, objective::Objective{T}, method::MinimizeMethod, iterations::Int) where {T}
    best, limits, monitor = search.best, search.limits, search.monitor
    idle = search.recall === nothing ? 0 : unknown(recall!)(search, objective, state)::Int
    begin!(search, state.loss, state.gnorm) || return Stop.diverged
    for attempt in 1:iterations
        stop = check_limits(state, objective, limits, search.iteration, idle, monitor)
        closing = stop == Stop.running && is_closing(limits, search.iteration, monitor)
        (closing || stop in (Stop.maxtime, Stop.maxiterations)) && unknown(remember!)(search, objective, state, idle)
        stop == Stop.running || return stop
        stop = closing ? settle!(state, objective, method) : step!(state, objective, method)
        search.iteration += 1
        idle = offer!(best, state.x, state.loss, state.gnorm) ? 0 : idle + 1
        record!(search.trace, search.iteration, state.loss, state.gnorm)
        if stop != Stop.running
            search.settled = stop == Stop.roundoff && settled!(state)
            return stop
        end
        yields(state) && return Stop.running
    end
    return Stop.running
end

const CLOSING = 8

"Will a long run reach its limit of time or iterations within `CLOSING` iterations?"
function is_closing(limits::Limits, iteration::Int, monitor::Monitor)
    iteration > 10 * CLOSING || return false
    iteration + CLOSING >= limits.maxiterations && return true
    isfinite(limits.maxtime) || return false
    time = elapsed(monitor)
    return time + CLOSING * time / iteration >= limits.maxtime
end

function check_limits(state, objective::Objective{T}, limits::Limits{T}, iteration::Int, idle::Int,
                      monitor::Monitor) where {T}
    0 < limits.minloss && state.loss <= limits.minloss && return Stop.minloss
    state.gnorm <= limits.min_gnorm && !at_saddle!(state, objective) && return Stop.min_gnorm
    iteration >= limits.maxiterations && return Stop.maxiterations
    idle >= limits.patience && return Stop.patience
    time = elapsed(monitor)
    time >= limits.maxtime && return Stop.maxtime
    return poll!(monitor, :minimize, iteration, time, state.loss, state.gnorm, state.x)
end
