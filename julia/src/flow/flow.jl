"""
    LowestPoint{T}

The point `x` of lowest `loss` of a descent, and ‖∇L‖_∞ there as `gnorm`.
"""
struct LowestPoint{T<:AbstractFloat}
    x::Vector{T}
    loss::T
    gnorm::Float64
end

"""
    FlowResult{T}

What [`flow`](@ref) found.

- `x`, `loss`, `gnorm`, `t`: the last accepted point, its loss, ‖∇L‖_∞ of the parameters that move, its time
- `stopped_by`: a `Stop.Reason`; `alg`: the methods that ran, as in "Tsit5" or "Tsit5+Rodas5P"
- `iterations`, `rejected`: accepted and rejected steps; `nfev`, `nhev`: gradients and Hessians; `time_run`:
  seconds; `nhvp`: Hessian-vector products
- `trajectory`: a [`Trajectory`](@ref); `dense`: a [`DenseOutput`](@ref) or `nothing`
- `best`: of a discrete method, whose loss may rise, the [`LowestPoint`](@ref); of a flow `nothing`, as it is the last
"""
struct FlowResult{T<:AbstractFloat}
    x::Vector{T}
    loss::T
    gnorm::Float64
    t::Float64
    stopped_by::Stop.Reason
    iterations::Int
    rejected::Int
    nfev::Int
    nhev::Int
    time_run::Float64
    alg::String
    trajectory::Trajectory{T}
    dense::Union{Nothing,DenseOutput{T}}
    nhvp::Int
    best::Union{Nothing,LowestPoint{T}}
end

Base.show(io::IO, r::FlowResult) =
    print(io, "FlowResult(loss = ", r.loss, ", gnorm = ", r.gnorm, ", t = ", r.t, ", ", r.stopped_by,
          " after ", r.iterations, " steps of ", r.alg, ")")

"""
    flow(net, x0; monitor = Monitor(), options...) -> FlowResult

Integrate dx/dt = -tauinv ∘ ∇L(x) from `x0` (P numbers, left as they are) at t = 0 to `maxT`. `options` are those of
[`FlowOptions`](@ref); the `monitor` is polled at every step.

Where activations have kinks, as relu has, steps end at kinks and the flow slides along those that it points to from both
sides (Filippov). The gradient there, whose norm is recorded and compared with `min_gnorm`, is the convex combination of
both sides' that is tangential to the kink, not that of one side, which [`gradient`](@ref) gives.

The flow also ends, with `Stop.roundoff`, when loss and gradient cannot be lowered any more in this number
type, and with `Stop.diverged` when no step leads to finite numbers.

# Example
    res = flow(net, x0; maxT = 1e4)
    res.x, res.loss, res.stopped_by
"""
flow(net::AbstractNet, x0::AbstractVector; monitor::Monitor=Monitor(), options...) =
    flow(net, x0, FlowOptions(; options...), monitor)

function flow(net::AbstractNet{T}, x0::AbstractVector, options::FlowOptions, monitor::Monitor) where {T}
    length(x0) == n_params(net) ||
        throw(DimensionMismatch("x0 has length $(length(x0)), the net has $(n_params(net)) parameters."))
    o = options
    # One by one: code that compares numbers of any type is compiled again where a package has numbers of its own.
    check_setting("maxT", o.maxT, o.maxT >= 0)
    check_setting("maxtime", o.maxtime, o.maxtime >= 0)
    check_setting("maxiterations", o.maxiterations, o.maxiterations >= 0)
    check_setting("n_samples_trajectory", o.n_samples_trajectory, o.n_samples_trajectory >= 0)
    check_setting("abstol", o.abstol, 0 <= o.abstol < Inf)
    check_setting("reltol", o.reltol, 0 <= o.reltol < Inf)
    allowed_rates(o.tauinv)::Bool || throw(ArgumentError("tauinv must be finite and not negative."))
    o.dt === nothing || check_setting("dt", o.dt, 0 < o.dt < Inf)
    start = convert(Vector{T}, x0)
    alg = flow_method(o.alg)::FlowMethod
    for (name, f) in o.observables         # one that fails does so before the work is done
        f(copy(start)) isa Real || throw(ArgumentError("the observable $name must return a real number."))
    end
    if alg isa DiscreteMethod
        o.dense && throw(ArgumentError("a discrete method has no dense output"))
        descent = Base.invokelatest(Descent, net, alg, start, o.tauinv, o.batchsize, o.seed)::Descent{T}
        return watching(() -> descend(descent, alg, o, monitor)::FlowResult{T}, net, monitor)
    end
    o.batchsize === nothing || throw(ArgumentError("batchsize is for discrete methods such as Adam; a flow sees all samples"))
    problem = FlowProblem(net, o.tauinv)
    state = FlowState(problem, max(o.abstol, Float64(max(floatmin(T), T(1e-30)))), max(o.reltol, 10 * Float64(eps(T))))
    return watching(() -> integrate(problem, state, start, alg, o, monitor), net, monitor)
end

allowed_rates(tauinv::Real) = 0 <= tauinv < Inf
allowed_rates(tauinv) = all(allowed_rates, tauinv)

check_setting(name, @nospecialize(value), good) = good ? nothing : Base.invokelatest(refuse_setting, name, value)
refuse_setting(name, value) = throw(ArgumentError("$name = $value is not allowed: it must not be negative or NaN."))

# Whether a trial step is taken, and why not. Numbers, since a dynamic call returns small ones without allocating; an
# enum's values took 16 bytes a step.
const GOOD, NO_STEP, NOT_FINITE, TOO_WRONG, UPHILL, TOO_FAST = 0, 1, 2, 3, 4, 5

"The loop, compiled once for a number type: method and net are reached by dynamic calls that do not allocate."
function integrate(problem::FlowProblem{T}, state::FlowState{T}, x0::Vector{T},
                   @nospecialize(alg::FlowMethod), options::FlowOptions, monitor::Monitor) where {T}
    n, event = problem.n, options.event
    start!(monitor, options.maxtime)
    auto = alg isa Auto
    kinks = problem.kinks
    stiff_alg = stiff_method(n, sample_count(problem.net)::Int)
    if auto && stiff_alg isa Exprb53s3 && kinks === nothing
        alg, auto = stiff_alg, false
    end
    cache::StepCache{T} = make_cache(auto ? Tsit5() : alg, T, n)
    alg_name = method_name(cache)::String
    state.escape = escape_limit(cache, state.reltol)::Float64
    control = controller(cache)::Controller
    scale!(state.y, problem, x0)
    x = copy(x0)
    recorder = Recorder(T, n, recorded(options))
    degree = interpolant_degree(cache)::Int
    auto && !(stiff_alg isa Rodas5P) && (degree = 5)
    dense = DenseRecorder{T}(Float64[0.0], degree, T[])
    watch = event === nothing ? nothing : EventWatch(event, T, n, degree)::EventWatch{T}
    kinks === nothing || begin_kinks!(kinks, problem, x, degree)
    iterations, rejected, failures, stiff, patience = 0, 0, 0, 0, switch_after(n)
    explicit, tried, covered = 0.0, 0, 0.0        # Tsit5's longest step when it was left, and what came of that
    indefinite = false
    wall = -WINDOW       # the accepted steps before the last trial that was not finite
    reason = Stop.running
    state.t_end = options.maxT
    state.exact = options.save_everystep || watch !== nothing || kinks !== nothing
    state.goal_gnorm, state.goal_loss = options.min_gnorm, options.minloss
    state.continuous = options.dense || watch !== nothing || kinks !== nothing
    try
        evaluate_point!(problem, state)
        record!(recorder, 0.0, x, state.loss, state.gnorm)
        state.loss_scale = max(state.loss, one(T))
        stagnation = Stagnation(state)
        reason = flow_finished(state, options, iterations, monitor)
        if !(isfinite(state.loss) && isfinite(state.gnorm))
            reason = Stop.diverged
        end
        if reason == Stop.running
            reason = poll!(monitor, :flow, 0, 0.0, Float64(state.loss), state.gnorm, x)
            watch !== nothing && holds_at_start!(watch, x, state.loss, state.gnorm) && (reason = Stop.event)
            state.h = options.dt !== nothing ? options.dt : initial_step!(problem, state, options.maxT, control.order)
        end
        while reason == Stop.running
            remaining = (options.maxT - state.t) - state.t_low
            state.h >= 0.99 * remaining && (state.h = remaining)
            verdict = try_step!(cache, problem, state, failures)
            if verdict != GOOD
                rejected += 1
                failures += 1
                indefinite |= verdict == NO_STEP
                verdict == NOT_FINITE && (wall = iterations)
                reason = hopeless(problem, state, verdict, failures)
                if reason != Stop.running && kinks !== nothing && !arrived(state) && kinks.frozen
                    ignore_kinks!(kinks, problem, state)
                    restart!(cache)
                    state.h = initial_step!(problem, state, remaining, control.order)
                    reason, failures, indefinite = Stop.running, 0, false
                    continue
                end
                state.h *= verdict == TOO_WRONG ? reject_factor(control, state.error) : verdict == NOT_FINITE ? 0.1 :
                           verdict == NO_STEP ? 0.6 : 0.3
                reason == Stop.running && elapsed(monitor) >= options.maxtime && (reason = Stop.maxtime)
                reason == Stop.running &&
                    (reason = poll!(monitor, :flow, iterations, state.t, Float64(state.loss), state.gnorm, x))
                continue
            end
            iterations += 1
            measure!(cache, state)
            whole = state.h
            met = kinks !== nothing && kinks.frozen && meets_kinks!(kinks, cache, problem, state)::Bool
            last = state.h >= remaining
            cut = watch === nothing ? 0.0 :
                  occurs!(watch, cache, problem, state, last ? options.maxT : state.t + state.h)::Float64
            if options.dense
                cut > 0 ? record_cut_step!(dense, watch.step, n, cut) : record_step!(dense, cache, problem, state)
            end
            stiff = state.stiffness > 2.5 && !met ? stiff + 1 : max(stiff - 2, 0)
            step = state.h
            advance!(state)
            last && !(0 < cut < 1) && (state.t = options.maxT; state.t_low = 0.0)
            met || accepted!(cache)
            options.dense && push!(dense.t, state.t)
            problem.scaled ? unscale_free!(x, problem, state.y) : copyto!(x, state.y)
            record!(recorder, state.t, x, state.loss, state.gnorm, state.modelled)
            reason = cut > 0 ? Stop.event : flow_finished(state, options, iterations, monitor)
            stuck = reason == Stop.running && stagnates!(stagnation, state, options.maxT, kinks !== nothing)
            if stuck && kinks !== nothing && !arrived(state)
                restart!(stagnation, state)
            elseif stuck
                stuck = false
                reason = kinks === nothing && iterations - wall < WINDOW && !at_floor(state) ? Stop.diverged : Stop.roundoff
            end
            reason == Stop.running &&
                (reason = poll!(monitor, :flow, iterations, state.t, Float64(state.loss), state.gnorm, x))
            if met
                decide!(kinks, problem, state)
                restart!(cache)
                state.h = whole
            end
            if stuck && kinks.frozen
                ignore_kinks!(kinks, problem, state)
                restart!(cache)
                state.h = initial_step!(problem, state, options.maxT - state.t, control.order)
            elseif kinks !== nothing && review!(kinks, problem, x, step, whole)
                evaluate_point!(problem, state)
                restart!(cache)
            end
            if explicit > 0                   # auto has left Tsit5, and may come back
                tried += 1
                covered += step
            end
            back = tried == STIFF_TRIAL && covered < STIFF_TRIAL * explicit * steps_worth(n)
            tried == STIFF_TRIAL && ((tried, covered) = (0, 0.0))
            if back || auto && stiff >= patience
                cache = make_cache(auto ? stiff_alg : Tsit5(), T, n)
                alg_name *= "+" * (method_name(cache)::String)
                state.escape = escape_limit(cache, state.reltol)::Float64
                control = controller(cache)::Controller
                if back
                    state.h = min(state.h, explicit)
                    explicit, stiff, patience = 0.0, 0, 4 * patience
                elseif kinks !== nothing
                    explicit = state.longest
                end
                auto = back
            elseif !met
                next_factor!(cache, control, state, problem, failures == 0, indefinite)
                state.h = min(state.h * state.factor, state.longest, 1e300)
            end
            failures = 0
            indefinite = false
        end
    catch interruption       # inside an evaluation: the last accepted point still stands
        interruption isa Interrupted || rethrow()
        reason = interruption.reason
        recorder.count == 0 && record!(recorder, 0.0, x, state.loss, state.gnorm)
    end
    settle!(recorder, problem, state)
    return FlowResult{T}(x, state.loss, state.gnorm, state.t, reason, iterations, rejected + rejections(cache)::Int, problem.nfev,
                         problem.nhev, elapsed(monitor), alg_name, observe(Trajectory(recorder), options.observables),
                         options.dense ? DenseOutput(dense, x0) : nothing, problem.nhvp, nothing)
end

"One trial step, good or why not; its error norm goes to `state.error`."
function try_step!(@nospecialize(cache::StepCache), problem::FlowProblem, state::FlowState, failures::Int)
    state.estimated = false
    attempt!(cache, problem, state)::Bool || return NO_STEP
    state.error = error_norm(problem, state)
    isfinite(state.error) || return NOT_FINITE
    state.error > 1 && return TOO_WRONG
    state.estimated && !good_enough(state) && (state.evaluated = false)
    evaluate_trial!(problem, state)
    (isfinite(state.lossnew) && isfinite(state.gnormnew)) || return NOT_FINITE
    state.lossnew <= state.loss + loss_slack(state) || return UPHILL
    failures < 3 && watch_escape(cache)::Bool && escapes_too_fast(state) && return TOO_FAST
    return GOOD
end

# Residuals of nothing but round-off: trials that are not finite are then the doing of steps without end, not of a wall.
at_floor(state::FlowState{T}) where {T} = abs(state.loss) <= (64 * eps(T))^2 * state.loss_scale

# The true loss and gradient at the points that are kept. Where a limit of time has passed, those are dropped that have only a
# model's; the last one is evaluated whatever the time.
function settle!(r::Recorder, problem::FlowProblem, state::FlowState)
    any(m -> r.modelled[m], 1:r.count) || return nothing
    r.samples > 0 && thin!(r, r.samples)
    if r.modelled[r.count]
        watch!(problem.net, nothing)
        evaluate_record!(r, r.count, problem, state)
        state.loss, state.gnorm = r.loss[r.count], r.gnorm[r.count]
    end
    kept, late = 0, false
    for m in 1:r.count
        if r.modelled[m] && !late
            try
                evaluate_record!(r, m, problem, state)
            catch interruption
                interruption isa Interrupted || rethrow()
                late = true
            end
        end
        r.modelled[m] || move!(r, kept += 1, m)
    end
    r.count = kept
    return nothing
end

function evaluate_record!(r::Recorder, m::Int, problem::FlowProblem, state::FlowState)
    copyto!(state.ynew, 1, r.x, (m - 1) * r.n + 1, r.n)
    scale!(state.err, problem, state.ynew)
    value_and_gradient_at!(state.gnew, problem, state.err)
    r.loss[m], r.gnorm[m], r.modelled[m] = problem.value[], problem.gnorm, false
    return nothing
end

# Where the goal is near, or progress is not plain to see, loss and gradient must be the true ones.
good_enough(state::FlowState) =
    state.gnormnew > 2 * state.goal_gnorm && state.lossnew > 2 * state.goal_loss &&
    state.loss - state.lossnew > 1e-6 * abs(state.loss)

# A gradient that grows by more than e^escape in a step belongs to an unstable direction that the step does
# not resolve, however small it still is; except where the gradient is round-off.
function escapes_too_fast(state::FlowState{T}) where {T}
    g, gnew, y = state.g, state.gnew, state.ynew
    before = LinearAlgebra.dot(g, g)
    after = LinearAlgebra.dot(gnew, gnew)
    after > before * T(exp(2 * state.escape)) || return false
    h = T(min(state.h, Float64(floatmax(T)) / 1e3))
    noise = 64 * eps(T)
    @inbounds for i in eachindex(y)
        h * abs(gnew[i]) > noise * abs(y[i]) && return true
    end
    return false
end

function flow_finished(state::FlowState, limits::FlowOptions, iterations::Int, monitor::Monitor)
    state.gnorm <= limits.min_gnorm && return Stop.min_gnorm
    limits.minloss > 0 && state.loss <= limits.minloss && return Stop.minloss
    state.t >= limits.maxT && return Stop.maxT
    iterations >= limits.maxiterations && return Stop.maxiterations
    elapsed(monitor) >= limits.maxtime && return Stop.maxtime
    return Stop.running
end

# Whether a step shorter still could succeed: not when this one moves nothing by a unit in the last place.
function hopeless(problem::FlowProblem{T}, state::FlowState{T}, verdict::Int, failures::Int) where {T}
    over = failures >= 400 || state.h < 1e-300
    if !over && failures >= 10
        over = true
        h = T(min(state.h, Float64(floatmax(T)) / 1e3))
        @inbounds for i in eachindex(state.y)
            h * abs(state.g[i]) > eps(T) * abs(state.y[i]) && (over = false)
        end
    end
    over || return Stop.running
    return verdict == NOT_FINITE || verdict == NO_STEP ? Stop.diverged : Stop.roundoff
end

# Frozen parameters keep the very numbers they came with.
function unscale_free!(x, problem::FlowProblem, y)
    root = problem.root
    @inbounds for i in eachindex(y)
        root[i] > 0 && (x[i] = root[i] * y[i])
    end
    return x
end
