# The threads that work for a net: see derivatives/shares.jl.

# A ticket is the number of an evaluation and that of a share. Helpers that meet in a claim count beyond the last share.
ticket(evaluation::Int, share::Int) = evaluation << 20 | share
evaluation_of(ticket::Int) = ticket >> 20
share_of(ticket::Int) = ticket & (1 << 20 - 1)
const CLOSED = 1 << 19          # behind the last share

"""
What is summed over samples: a method of `sum_samples!`, with what [`Sums`](@ref) it needs, `make_arrays!` and
`add_sums!`.
"""
abstract type Pass end
struct LossPass <: Pass end
struct GradientPass <: Pass end         # and loss
struct ProductPass <: Pass end          # Hessian-vector product
struct HessianPass <: Pass end
struct GaussNewtonPass <: Pass end
struct MomentsPass <: Pass end          # of the inputs of a linear output layer
const MatrixPass = Union{HessianPass,GaussNewtonPass}

"""
    Sums{T}

Sums over some of the samples: of the loss, `value`, and of derivatives in the arrays that the pass has, which are made
when they are first needed. `ticket`: of which share they are, once they are complete.
"""
mutable struct Sums{T}
    ticket::Threads.Atomic{Int}
    value::T
    vector::Union{Nothing,Vector{T}}
    matrix::Union{Nothing,Matrix{T}}
    gram::Union{Nothing,Matrix{T}}
    moments::Union{Nothing,Matrix{T}}
end
Sums{T}() where {T} = Sums{T}(Threads.Atomic{Int}(0), zero(T), nothing, nothing, nothing, nothing)

"What a Hessian works in, made at the first one of a net: see hessian.jl and single_hidden_layer.jl."
abstract type HessianBuffers{T} end

"""
    Worker{T}

What one thread writes to: `sums` wait there to be added. `blocks` are those of its share, `ticket` that of the share
which a helper is at; of the thread that asked, that of the share which it does again, or 0.
"""
mutable struct Worker{T}
    workspace::Workspace{T}
    buffers::Union{Nothing,HessianBuffers{T}}
    sums::Vector{Sums{T}}
    blocks::UnitRange{Int}
    ticket::Int
end

"""
    Crew{T}

The threads of a net: `workers`, that of the thread that asks first. The others, the helpers, have a task each from the
first evaluation on that they may help with. `ticket` is that of the next share to be claimed of `n` for `pass`, `added`
that of the last share in `total`. Helpers may still be at a share that is needed no more when the next evaluation
begins, or later: they read copies of its arguments, `θ` and `v`. Helpers which find nothing to do for `PATIENCE`
nanoseconds go to sleep behind the `door`.

An evaluation in which helpers did not deliver at least four times as many shares as had to be done again is a failure:
the next `rest` evaluations do without them, twice as many after each further failure, up to `LONGEST_REST`.
"""
mutable struct Crew{T}
    workers::Vector{Worker{T}}
    total::Sums{T}
    ticket::Threads.Atomic{Int}
    added::Threads.Atomic{Int}
    n::Int
    pass::Pass
    θ::Vector{T}
    v::Vector{T}
    tasks::Vector{Task}
    door::typeof(Threads.Condition())
    asleep::Threads.Atomic{Int}
    rest::Int
    failures::Int
end
Crew{T}(workers::Vector{Worker{T}}) where {T} =
    Crew{T}(workers, Sums{T}(), Threads.Atomic{Int}(CLOSED), Threads.Atomic{Int}(CLOSED), 0, LossPass(), T[], T[],
            Task[], Threads.Condition(), Threads.Atomic{Int}(0), 0, 0)

function Crew{T}(layers, blocks, threads::Int) where {T}
    rows = isempty(blocks) ? LANES : first(blocks).n
    workers = clamp(length(blocks), 1, min(threads, MOST_SHARES))
    sums() = [Sums{T}() for _ in 1:(workers == 1 ? 1 : MOST_SHARES)]
    return Crew{T}([Worker{T}(Workspace{T}(layers, rows), nothing, sums(), 1:0, 0) for _ in 1:workers])
end
"The copy has tasks of its own."
Base.deepcopy_internal(crew::Crew{T}, seen::IdDict) where {T} =
    get!(() -> Crew{T}(Base.deepcopy_internal(crew.workers, seen)), seen, crew)

# 24 is a multiple of 2, 3, 4, 6, 8 and 12 threads.
const MOST_SHARES = 24
