# The loop of a flow: it begins, makes trial steps that are accepted or rejected, changes its method where that pays,
# and ends.

# Whether a trial step is taken, and why not. Numbers, since a dynamic call returns small ones without allocating; an
# enum's values took 16 bytes a step.
const GOOD, NO_STEP, NOT_FINITE, TOO_WRONG, UPHILL, TOO_FAST = 0, 1, 2, 3, 4, 5

"""
    Switch

Between Tsit5 and the stiff method that fits a net, for [`Auto`](@ref). Without kinks it is made once.
"""
mutable struct Switch
    open::Bool             # the stiff method may still take over
    method::FlowMethod     # the stiff one
    stiff::Int             # steps at the limit of stability, less twice the others
    patience::Int          # so many of them make the change
    explicit::Float64      # Tsit5's longest step when it was left, zero where there is no way back
    tried::Int             # steps of the stiff method since, up to `STIFF_TRIAL`
    covered::Float64       # how far they led
    mark::Float64          # when `since` began to count the steps, until the time has doubled; NaN: nobody counts
    since::Int

    # Whatever the method's type: no code of its own for each.
    Switch(open, @nospecialize(method::FlowMethod), patience, mark) =
        new(open, method, 0, patience, 0.0, 0, 0.0, mark, 0)
end

"""
    Integration{T}

A flow on its way: the problem, where it is and where it goes, the method that makes the steps, and what is kept.
"""
Base.@kwdef mutable struct Integration{T<:AbstractFloat}
    problem::FlowProblem{T}
    state::FlowState{T}
    options::FlowOptions
    monitor::Monitor
    method::StepCache{T}
    names::String                   # of the methods so far
    control::Controller
    switch::Switch
    x::Vector{T}                    # the last accepted point
    recorder::Recorder{T}
    dense::DenseRecorder{T}
    watch::Union{Nothing,EventWatch{T}}
    kinks::Union{Nothing,Kinks{T}} = problem.kinks
    stagnation::Stagnation{T} = Stagnation(state)
    iterations::Int = 0
    rejected::Int = 0
    failures::Int = 0               # trials since the last accepted step
    indefinite::Bool = false        # one of them had no step
    wall::Int = -WINDOW             # the accepted steps before the last trial that was not finite
end

function Integration(problem::FlowProblem{T}, state::FlowState{T}, x0::Vector{T}, @nospecialize(alg::FlowMethod),
                     options::FlowOptions, monitor::Monitor) where {T}
    n, event, kinks = problem.n, options.event, problem.kinks
    auto = alg isa Auto
    stiff = stiff_method(n, sample_count(problem.net)::Int, kinks !== nothing)
    begins = stiff isa ExpAdams         # and leaves to others what it creeps along
    method::StepCache{T} = make_state(!auto ? alg : begins ? stiff : Tsit5(), T, n)
    degree = interpolant_degree(method)::Int
    auto && !(stiff isa Rodas5P) && (degree = max(degree, 5))
    watch = event === nothing ? nothing : unknown(EventWatch)(event, T, n, degree)::EventWatch{T}
    scale!(state.y, problem, x0)
    kinks === nothing || unknown(begin_kinks!)(kinks, problem, x0, degree)
    state.escape = escape_limit(method, state.reltol)::Float64
    state.t_end = options.maxT
    state.exact = options.save_everystep || watch !== nothing || kinks !== nothing
    state.goal_gnorm, state.goal_loss = options.min_gnorm, options.minloss
    state.continuous = options.dense || watch !== nothing || kinks !== nothing
    return Integration{T}(problem=problem, state=state, options=options, monitor=monitor, method=method,
                          names=method_name(method)::String, control=controller(method)::Controller,
                          switch=Switch(auto && !begins, stiff, switch_after(n), auto && begins ? 0.0 : NaN),
                          x=copy(x0), recorder=Recorder(T, n, recorded(options, n)),
                          dense=DenseRecorder{T}([0.0], degree, T[]), watch=watch)
end

"The loop, compiled once for a number type: method and net are reached by dynamic calls that do not allocate."
function integrate(problem::FlowProblem{T}, state::FlowState{T}, x0::Vector{T},
                   @nospecialize(alg::FlowMethod), options::FlowOptions, monitor::Monitor) where {T}
    start!(monitor, options.maxtime)
    run = Integration(problem, state, x0, alg, options, monitor)
    reason = Stop.running
    try
        reason = begin!(run)
        while reason == Stop.running
            remaining = (options.maxT - state.t) - state.t_low
            state.h >= 0.99 * remaining && (state.h = remaining)
            verdict = try_step!(run.method, problem, state, run.failures)
            reason = verdict == GOOD ? accept!(run, remaining) : reject!(run, verdict, remaining)
        end
    catch interruption       # inside an evaluation: the last accepted point still stands
        interruption isa Interrupted || rethrow()
        reason = interruption.reason
        run.recorder.count == 0 && record!(run.recorder, 0.0, run.x, state.loss, state.gnorm)
    end
    return finish!(run, x0, reason)
end

"The first point, and the first step's length."
function begin!(run::Integration{T}) where {T}
    problem, state, options, monitor = run.problem, run.state, run.options, run.monitor
    evaluate_point!(problem, state)
    record!(run.recorder, 0.0, run.x, state.loss, state.gnorm)
    state.loss_scale = max(state.loss, one(T))
    run.stagnation = Stagnation(state)
    isfinite(state.loss) && isfinite(state.gnorm) || return Stop.diverged
    reason = flow_finished(state, options, 0, monitor)
    reason == Stop.running || return reason
    reason = poll!(run)
    watch = run.watch
    watch !== nothing && unknown(holds_at_start!)(watch, run.x, state.loss, state.gnorm)::Bool && (reason = Stop.event)
    state.h = options.dt !== nothing ? options.dt : initial_step!(problem, state, options.maxT, run.control.order)
    return reason
end

poll!(run::Integration) =
    poll!(run.monitor, :flow, run.iterations, run.state.t, Float64(run.state.loss), run.state.gnorm, run.x)

"After a trial step that failed: a shorter one, or the end."
function reject!(run::Integration, verdict::Int, remaining::Float64)
    state, kinks = run.state, run.kinks
    run.rejected += 1
    run.failures += 1
    run.indefinite |= verdict == NO_STEP
    verdict == NOT_FINITE && (run.wall = run.iterations)
    reason = hopeless(state, verdict, run.failures)
    if reason != Stop.running && kinks !== nothing && !arrived(state) && kinks.frozen
        unknown(step_blindly!)(run, kinks, remaining)
        run.failures, run.indefinite = 0, false
        return Stop.running
    end
    state.h *= verdict == TOO_WRONG ? reject_factor(run.control, state.error) : verdict == NOT_FINITE ? 0.1 :
               verdict == NO_STEP ? 0.6 : 0.3
    reason == Stop.running || return reason
    elapsed(run.monitor) >= run.options.maxtime && return Stop.maxtime
    return poll!(run)
end

# Where steps from kink to kink lead nowhere: go on as if there were none.
function step_blindly!(run::Integration, kinks::Kinks, remaining::Float64)
    ignore_kinks!(kinks, run.problem, run.state)
    restart!(run.method)
    run.state.h = initial_step!(run.problem, run.state, remaining, run.control.order)
    return nothing
end

"After a good trial step: go there, see whether that is the end, and choose the next step and its method."
function accept!(run::Integration{T}, remaining::Float64) where {T}
    problem, state, options, kinks = run.problem, run.state, run.options, run.kinks
    run.iterations += 1
    measure!(run.method, state)
    whole = state.h
    met = kinks !== nothing && kinks.frozen && unknown(meets_kinks!)(kinks, run.method, problem, state)::Bool
    run.switch.stiff = state.stiffness > 2.5 && !met ? run.switch.stiff + 1 : max(run.switch.stiff - 2, 0)
    cut = land!(run, met, state.h >= remaining)
    step = state.h
    reason = cut > 0 ? Stop.event : flow_finished(state, options, run.iterations, run.monitor)
    stuck = reason == Stop.running && stagnates!(run.stagnation, state, options.maxT, kinks !== nothing)
    if stuck && kinks !== nothing && !arrived(state)
        restart!(run.stagnation, state)
    elseif stuck
        stuck = false
        stopped_at_wall = kinks === nothing && run.iterations - run.wall < WINDOW && !at_floor(state) &&
                          !moves(state, state.g, 64 * eps(T))
        reason = stopped_at_wall ? Stop.diverged : Stop.roundoff
    end
    reason == Stop.running && (reason = poll!(run))
    kinks === nothing || unknown(leave_kinks!)(run, kinks, met, stuck, step, whole)
    if !switch!(run, step) && !met
        next_factor!(run.method, run.control, state, problem, run.failures == 0, run.indefinite)
        state.h = min(state.h * state.factor, state.longest, 1e300)
    end
    run.failures = 0
    run.indefinite = false
    return reason
end

"""
Make the trial point the current one, or the point of the step where the event happened, and keep what is asked for;
that part of the step, or zero.
"""
function land!(run::Integration, met::Bool, last::Bool)
    problem, state, options, watch, dense = run.problem, run.state, run.options, run.watch, run.dense
    cut = watch === nothing ? 0.0 :
          unknown(occurs!)(watch, run.method, problem, state, last ? options.maxT : state.t + state.h)::Float64
    if options.dense
        cut > 0 ? unknown(record_cut_step!)(dense, watch.step, problem.n, cut) :
        unknown(record_step!)(dense, run.method, problem, state)
    end
    advance!(state)
    last && !(0 < cut < 1) && (state.t = options.maxT; state.t_low = 0.0)
    met || accepted!(run.method)
    options.dense && push!(dense.t, state.t)
    problem.scaled ? unscale!(run.x, problem, state.y) : copyto!(run.x, state.y)
    record!(run.recorder, state.t, run.x, state.loss, state.gnorm, state.modelled)
    return cut
end

"""
Where kinks were met, sides for the way on; where the flow stands still between them or steps that end at them do not
pay, or pay again, the other way to step.
"""
function leave_kinks!(run::Integration, kinks::Kinks, met::Bool, stuck::Bool, step::Float64, whole::Float64)
    problem, state = run.problem, run.state
    if met
        decide!(kinks, problem, state)
        restart!(run.method)
        state.h = whole
    end
    if stuck && kinks.frozen
        step_blindly!(run, kinks, run.options.maxT - state.t)
    elseif review!(kinks, problem, run.x, step, whole)
        evaluate_point!(problem, state)
        restart!(run.method)
    end
    return nothing
end

"Whether so many steps have not doubled the time that another method is to go on."
function creeps!(s::Switch, t::Float64)
    isnan(s.mark) && return false
    t > 2 * s.mark ? (s.mark = t; s.since = 0) : (s.since += 1)
    return s.since >= CREEPING
end

"Another method, if [`Auto`](@ref) finds after this `step` that one pays; whether it did."
function switch!(run::Integration{T}, step::Float64) where {T}
    s, state, n = run.switch, run.state, run.problem.n
    if s.explicit > 0
        s.tried += 1
        s.covered += step
    end
    back = s.tried == STIFF_TRIAL && s.covered < STIFF_TRIAL * s.explicit * steps_worth(n)
    s.tried == STIFF_TRIAL && ((s.tried, s.covered) = (0, 0.0))
    if creeps!(s, state.t)
        s.method = creeping_method(n, sample_count(run.problem.net)::Int)
        s.mark, s.open, s.stiff = NaN, true, s.patience
    end
    back || s.open && s.stiff >= s.patience || return false
    run.method = make_state(back ? Tsit5() : s.method, T, n)
    run.names *= "+" * (method_name(run.method)::String)
    run.control = controller(run.method)::Controller
    state.escape = escape_limit(run.method, state.reltol)::Float64
    if back
        state.h = min(state.h, s.explicit)
        s.explicit, s.stiff, s.patience = 0.0, 0, 4 * s.patience
    elseif run.kinks !== nothing
        s.explicit = state.longest
    end
    s.open = back
    return true
end

"What came of it."
function finish!(run::Integration{T}, x0::Vector{T}, reason::Stop.Reason) where {T}
    problem, state, options = run.problem, run.state, run.options
    evaluate_modelled!(run.recorder, problem, state)
    time_run = elapsed(run.monitor)
    trajectory = observe(Trajectory(run.recorder), options.observables, run.monitor, reason)
    return FlowResult{T}(x=run.x, loss=state.loss, gnorm=state.gnorm, t=state.t, stopped_by=reason,
                         iterations=run.iterations, rejected=run.rejected + rejections(run.method)::Int,
                         nfev=problem.nfev, nhev=problem.nhev, nhvp=problem.nhvp, time_run=time_run,
                         alg=run.names, trajectory=trajectory,
                         sol=options.dense ? DenseSolution(run.dense, x0) : nothing)
end

"One trial step, good or why not; its error norm goes to `state.error`."
function try_step!(@nospecialize(cache::StepCache), problem::FlowProblem, state::FlowState, failures::Int)
    state.estimated = false
    step!(cache, problem, state)::Bool || return NO_STEP
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

# The true loss and gradient at the points that are kept. Where a limit of time has passed, those are dropped that have
# only a model's; the last one is evaluated whatever the time.
function evaluate_modelled!(r::Recorder, problem::FlowProblem, state::FlowState)
    any(m -> r.modelled[m], 1:r.count) || return nothing
    finish_thinning!(r)
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
        late && (r.strayed[m] = Strayed(Inf, Inf, Inf, Inf, Inf))
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
    g, gnew = state.g, state.gnew
    before = LinearAlgebra.dot(g, g)
    after = LinearAlgebra.dot(gnew, gnew)
    after > before * T(exp(2 * state.escape)) || return false
    return moves(state, gnew, 64 * eps(T))
end

# Whether a step along `g` changes any parameter by more than the part `little` of it.
function moves(state::FlowState{T}, g::Vector{T}, little::T) where {T}
    h = T(min(state.h, Float64(floatmax(T)) / 1e3))
    @inbounds for i in eachindex(g)
        h * abs(g[i]) > little * abs(state.y[i]) && return true
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
function hopeless(state::FlowState, verdict::Int, failures::Int)
    over = failures >= 400 || state.h < 1e-300 || (failures >= 10 && !moves(state, state.g, eps(eltype(state.g))))
    over || return Stop.running
    return verdict == NOT_FINITE || verdict == NO_STEP ? Stop.diverged : Stop.roundoff
end
