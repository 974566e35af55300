# What a minimisation that a limit ended needs to go on as if it had not ended: the numbers in its method's state.

# So many are 1.6 MB: a Hessian and its factor for some 300 parameters.
const MOST_REMEMBERED = 200_000

"""
    remember!(search, objective, state, idle)

Note the state from which an uninterrupted run would go on, if that is not too large: before a limit changes the steps.
While others are asked, since the method sees no way on, it is where they were asked: they have no state of their own.
"""
function remember!(search::Search{T}, objective::Objective{T}, state, idle::Int) where {T}
    own = state === nothing || parentmodule(typeof(state)) === MLPGF
    own && search.stage >= 0 && search.memory === nothing || return search
    best = search.best
    count_numbers(state) + length(best.x) <= MOST_REMEMBERED || return search
    memory = Float64[search.stage, search.rounds, idle, objective.nfev, best.loss, best.gnorm, best.lowest_loss,
                     best.lowest_gnorm]
    append!(memory, best.x)
    visit(state) do x, name
        x isa Array ? append!(memory, x) : push!(memory, getfield(x, name))
    end
    search.memory = memory
    return search
end

"Fill the state and the search with what another run has remembered; how many iterations had made no progress there."
function recall!(search::Search{T}, objective::Objective{T}, state) where {T}
    memory, best = search.recall::Vector{Float64}, search.best
    needed = 8 + length(best.x) + count_numbers(state)
    length(memory) == needed ||
        throw(ArgumentError("optim_memory has $(length(memory)) numbers, $needed are needed: it is that of another " *
                            "method, or of another net"))
    search.recall = nothing
    search.stage, search.rounds = memory[1:2]
    search.counted = memory[4] - objective.nfev
    objective.nfev = memory[4]
    best.loss, best.gnorm, best.lowest_loss, best.lowest_gnorm = memory[5:8]
    copyto!(best.x, memory[9:8+length(best.x)])
    place = 8 + length(best.x)
    visit(state) do x, name
        if x isa Array
            copyto!(x, memory[place+1:place+length(x)])
            place += length(x)
        else
            setfield!(x, name, convert(fieldtype(typeof(x), name), memory[place+=1]))
        end
    end
    return Int(memory[3])
end

function count_numbers(state)
    n = 0
    visit((x, name) -> n += x isa Array ? length(x) : 1, state)
    return n
end

"f(array, nothing) for the arrays of numbers in `x` and what it is made of, and f(struct, field) for other numbers."
visit(f, x::Array{<:Number}) = (f(x, nothing); nothing)
visit(f, x::Array) = foreach(y -> visit(f, y), x)
visit(f, ::Union{Nothing,Number,MinimizeMethod}) = nothing
function visit(f, x)
    for name in fieldnames(typeof(x))
        value = getfield(x, name)
        value isa Number && ismutable(x) ? f(x, name) : visit(f, value)
    end
end
