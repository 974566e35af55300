# Before a run may say "roundoff": could another method go on from here?

"Up to so many parameters every method asks those with a Hessian where it stops: its matrices are small there."
const DENSE_OPINION = 1000
opinion_iterations(P::Int) = clamp(div(20_000, P), 20, 200)

"The methods that are asked when `method` sees no way on."
function second_opinions(@nospecialize(method::MinimizeMethod), P::Int)
    P > DENSE_OPINION && method isa NewtonKrylov && return MinimizeMethod[LBFGS()]
    P > DENSE_PARAMETERS && method isa AutoMinimizer && return MinimizeMethod[NewtonKrylov()]
    P > DENSE_OPINION && method isa QuasiNewton && return MinimizeMethod[NewtonKrylov()]
    return MinimizeMethod[other for other in (NewtonTrustRegion(), Newton(), BFGS(), AutoMinimizer())
                          if typeof(other) != typeof(method)]
end

"""
    confirm!(search, objective, method) -> Stop.Reason

`method` ended with `Stop.roundoff`. Ask others: Newton steps at a minimum that is a point, elsewhere
other methods for some iterations. While they get on, `method` goes on from what they found; what hardly gets on though
rounding allows it ends as `patience`, at the point where `method` saw no way on if the others left the floor of a
valley. Where they go sideways, as far as rounding lets them, they are asked again, `ROUNDS` times in all: there may be
a way down from there.
"""
function confirm!(search::Search{T}, objective::Objective{T}, @nospecialize(method::MinimizeMethod)) where {T}
    best, P, stop = search.best, length(search.best.x), Stop.roundoff
    while stop == Stop.roundoff && best.gnorm > 0 && !search.settled
        search.memory, search.stage = nothing, 0
        remember!(search, objective, nothing, 0)
        search.stage = -1
        P <= DENSE_OPINION && finish_isolated!(best, objective) && return stop
        x, loss, gnorm = copy(best.x), best.loss, best.gnorm
        for other in push!(second_opinions(method, P), method)      # begun anew it may see more, too
            stop = unknown(pursue!)(search, objective, other, opinion_iterations(P))::Stop.Reason
            stop == Stop.running || stop == Stop.roundoff || return stop
            gets_on_well(best, loss, gnorm) && break
        end
        search.rounds += 1
        if !gets_on(best, loss, gnorm)
            (search.rounds == ROUNDS || best.x == x) && return Stop.roundoff
            stop = Stop.roundoff
            continue
        end
        if !gets_on_well(best, loss, gnorm)
            best.gnorm <= gnorm || retreat!(best, x, loss, gnorm)
            return Stop.patience
        end
        search.memory, search.stage = nothing, 1
        stop = unknown(pursue!)(search, objective, method, typemax(Int))::Stop.Reason
    end
    return stop
end

"Is the best point better than one with this loss and gradient norm was, by more than rounding?"
gets_on(best::BestPoint{T}, loss::T, gnorm::T) where {T} =
    loss - best.loss > loss_rounding(loss) || best.gnorm < gnorm / 4
gets_on_well(best::BestPoint{T}, loss::T, gnorm::T) where {T} = best.loss <= T(0.9) * loss || best.gnorm <= gnorm / 4

function retreat!(best::BestPoint{T}, x::Vector{T}, loss::T, gnorm::T) where {T}
    copyto!(best.x, x)
    best.loss, best.gnorm = loss, gnorm
    return best
end

const FINISHING_STEPS = 8

"""
Where the Hessian is positive definite beyond doubt, the minimum is a point and Newton's method the last word: steps
with this Hessian, as long as they halve the gradient norm and `FINISHING_STEPS` more, since the last digit of the
gradient goes up and down. False where the Hessian is anything else.
"""
function finish_isolated!(best::BestPoint{T}, objective::Objective{T}) where {T}
    P = length(best.x)
    H = evaluate_hessian!(zeros(T, P, P), objective, best.x)
    all_finite(H) || return false
    factor = copy(H)
    lowest = sqrt(eps(T)) * maximum(sum(abs, H; dims=1))
    for i in 1:P
        factor[i, i] -= lowest
    end
    cholesky_lower!(factor) && cholesky_lower!(copyto!(factor, H)) || return false
    x, trial, step, gradient = copy(best.x), zeros(T, P), zeros(T, P), zeros(T, P)
    evaluate!(gradient, objective, x)
    left = FINISHING_STEPS
    while left > 0
        gnorm = best.gnorm
        for i in 1:P
            step[i] = -gradient[i]
        end
        cholesky_solve!(factor, step)
        shift_by!(trial, x, step) || break
        x, trial = trial, x
        loss = evaluate!(gradient, objective, x)
        offer!(best, x, loss, supnorm(gradient))
        best.gnorm <= gnorm / 2 || (left -= 1)
    end
    return true
end
