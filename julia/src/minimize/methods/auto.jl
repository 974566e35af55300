"""
    AutoMinimizer()

The method that suits the problem: [`NewtonLBFGS`](@ref), and up to `JACOBIAN_NUMBERS` [`VariableProjection`](@ref)
where the fit has become nearly perfect and Newton's method gets on slowly, as it does where the minimum is no point;
[`LBFGS`](@ref) for more than `DENSE_PARAMETERS` parameters. The rules count parameters, samples and steps and know no
clock, so that a run can be repeated.
"""
struct AutoMinimizer <: MinimizeMethod end
method_name(::AutoMinimizer) = "auto"

"""
Up to so many parameters a Hessian is cheap beside what its steps save; its factor takes as long as its sum over 10
000 samples.
"""
const DENSE_PARAMETERS = 1500

projects(net) = false
projects(net::Union{Net,ConstrainedNet}) = residuals_known(net) && jacobian_fits(net)

function pursue!(search::Search{T}, objective::Objective{T}, ::AutoMinimizer, iterations::Int) where {T}
    net, last = objective.net, iterations == typemax(Int) ? iterations : search.iteration + iterations
    n_params(net) > DENSE_PARAMETERS && return unknown(pursue!)(search, objective, LBFGS(), iterations)
    begins = search.recall === nothing ? 1 : Int(first(search.recall))
    stage!(k) = search.stage < 0 || (search.stage = k)
    if begins == 1
        stage!(1)
        stop = unknown(pursue!)(search, objective, NewtonLBFGS(projects(net)), iterations)::Stop.Reason
        stop == Stop.running && search.iteration < last || return stop
    end
    if begins <= 2
        stage!(2)
        stop = unknown(pursue!)(search, objective, VariableProjection(), last - search.iteration)::Stop.Reason
        rounding = (100 * eps(T))^2 * target_scale(net)
        stop == Stop.roundoff && search.best.loss > rounding && search.iteration < last || return stop
    end
    stage!(3)
    return unknown(pursue!)(search, objective, NewtonLBFGS(), last - search.iteration)
end

register!(MINIMIZE_METHODS, "auto", AutoMinimizer(), "the one of the others that suits the problem";
          when="first: NewtonLBFGS, and VariableProjection where a fit becomes perfect; LBFGS for more than " *
               "$DENSE_PARAMETERS parameters")
