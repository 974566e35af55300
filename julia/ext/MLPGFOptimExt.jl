"""
Optim's methods for `minimize`. Every point that they evaluate is offered as the best so far; our limits, trace and
callback hang on theirs. Where they find no better point any more, that is `Stop.roundoff`.
"""
module MLPGFOptimExt

using MLPGF, Optim
import MLPGF: BestPoint, MinimizeMethod, Objective, Search, Stop

struct OptimMethod{M<:Optim.AbstractOptimizer} <: MinimizeMethod
    method::M
    options::NamedTuple
end
OptimMethod(method) = OptimMethod(method, NamedTuple())

MLPGF.minimize_method(method::Optim.AbstractOptimizer) = OptimMethod(method)
function MLPGF.with_options(method::OptimMethod, options)
    given = MLPGF.named_options(options)
    for name in (:callback, :iterations)
        haskey(given, name) && throw(ArgumentError("optim_options: $name is what minimize itself sets"))
    end
    try
        Optim.Options(; given...)
    catch failure
        known = join(sort!(setdiff(collect(fieldnames(Optim.Options)), [:callback, :iterations])), ", ")
        throw(ArgumentError("optim_options cannot be given to Optim.Options: $(first_line(failure)); known are $known"))
    end
    return OptimMethod(method.method, given)
end
first_line(failure) = String(first(split(sprint(showerror, failure), '\n')))

MLPGF.provider(::OptimMethod) = "optim"
MLPGF.method_name(method::OptimMethod) = String(nameof(typeof(method.method)))

"The last point that was evaluated."
mutable struct LastPoint{T<:AbstractFloat}
    x::Vector{T}
    gradient::Vector{T}
    loss::T
    progress::Bool       # a new low since the last iteration
end

function visit!(last::LastPoint{T}, best::BestPoint{T}, objective::Objective{T}, x) where {T}
    last.x == x && return last
    copyto!(last.x, x)
    last.loss = MLPGF.evaluate!(last.gradient, objective, last.x)
    last.progress |= MLPGF.offer!(best, last.x, last.loss, MLPGF.supnorm(last.gradient))
    return last
end

function MLPGF.pursue!(search::Search{T}, objective::Objective{T}, method::OptimMethod, iterations::Int) where {T}
    best = search.best
    x0 = copy(best.x)
    last = LastPoint{T}(fill(T(NaN), length(x0)), zeros(T, length(x0)), T(NaN), false)
    visit!(last, best, objective, x0)
    MLPGF.begin!(search, last.loss, MLPGF.supnorm(last.gradient)) || return Stop.diverged
    stop = MLPGF.check_limits(best, objective, search.limits, search.iteration, 0, search.monitor)
    stop == Stop.running || return stop
    idle, started = 0, false
    f(x) = visit!(last, best, objective, x).loss
    g!(G, x) = copyto!(G, visit!(last, best, objective, x).gradient)
    fg!(G, x) = (g!(G, x); last.loss)
    h!(H, x) =
        (MLPGF.evaluate_hessian!(objective_matrix, objective, convert(Vector{T}, x)); copyto!(H, objective_matrix))
    function callback(_)
        if !started          # Optim shows the state before the first step, too
            started = true
            return false
        end
        search.iteration += 1
        idle = last.progress ? 0 : idle + 1
        last.progress = false
        MLPGF.record!(search.trace, search.iteration, best.loss, best.gnorm)
        stop = MLPGF.check_limits(best, objective, search.limits, search.iteration, idle, search.monitor)
        return stop != Stop.running
    end
    second = method.method isa Optim.SecondOrderOptimizer
    objective_matrix = second ? zeros(T, length(x0), length(x0)) : zeros(T, 0, 0)
    problem = second ? Optim.TwiceDifferentiable(f, g!, fg!, h!, x0) : Optim.OnceDifferentiable(f, g!, fg!, x0)
    defaults = (; x_abstol=0, x_reltol=0, f_abstol=0, f_reltol=0, g_abstol=0, allow_f_increases=true,
                iterations=iterations, show_warnings=false, callback=callback)
    Optim.optimize(problem, x0, method.method, Optim.Options(; defaults..., method.options...))
    stop == Stop.running || return stop
    return isempty(method.options) ? Stop.roundoff : Stop.patience
end

end
