# Parameters that are not free: frozen ones, tied ones, any affine subspace.

"""
    Constraint(θ; freeze = (), tie = ())
    Constraint(B, c)

All points θ = B z + c: P parameters that n ≤ P coordinates z drive. `flow`, `minimize`, `train`, `classify` and
`polish` take it as `constraint`; [`ConstrainedNet`](@ref) is the loss as a function of z, with the gradient Bᵀg and the
Hessian BᵀHB.

`freeze`: indices of parameters that keep the values they have in `θ`. `tie`: groups of indices of parameters that are
equal, or opposite where an index is negative: `tie = [[1, 2], [3, -4]]` is θ₁ = θ₂ and θ₃ = −θ₄. A coordinate is the
value of the first of its group, so that its derivative is the sum over the group, as for a parameter that several
layers share. `B`: a matrix (P×n) of full column rank, `c` a vector (P).

    julia> C = Constraint([1.0, 2.0, 3.0, 4.0]; freeze = [2], tie = [[1, -3]]);

    julia> MLPGF.embed(C, [5.0, 6.0])
    4-element Array{Float64,1}:
      5.0
      2.0
     -5.0
      6.0
"""
struct Constraint{T<:AbstractFloat}
    first::Vector{Int}       # column j of B has the entries first[j]:first[j+1]-1 of `rows` and `values`
    rows::Vector{Int}
    values::Vector{T}
    c::Vector{T}
    Constraint{T}(C::Constraint) where {T} = new{T}(C.first, C.rows, Vector{T}(C.values), Vector{T}(C.c))
    function Constraint{T}(first, rows, values, c) where {T}
        P, n = length(c), length(first) - 1
        n >= 0 && first[1] == 1 && issorted(first) && first[end] - 1 == length(rows) == length(values) ||
            throw(ArgumentError("the columns of the constraint are not those of a sparse matrix"))
        all(1 <= r <= P for r in rows) || throw(ArgumentError("the constraint names parameters other than 1 to $P"))
        all(isfinite, values) && all(isfinite, c) || throw(ArgumentError("the constraint holds NaN or Inf"))
        C = new{T}(first, rows, values, c)
        check_rank(C)
        return C
    end
end

function Constraint(B::AbstractMatrix, c::AbstractVector)
    size(B, 1) == length(c) || throw(DimensionMismatch("B is $(size(B)), c has $(length(c)) entries"))
    T = float(promote_type(eltype(B), eltype(c)))
    first, rows, values = [1], Int[], T[]
    for j in axes(B, 2)
        for i in axes(B, 1)
            iszero(B[i, j]) || (push!(rows, i); push!(values, B[i, j]))
        end
        push!(first, length(rows) + 1)
    end
    return Constraint{T}(first, rows, values, Vector{T}(c))
end

function Constraint(θ::AbstractVector{T}; freeze=(), tie=()) where {T<:AbstractFloat}
    P = length(θ)
    parent, relation = collect(1:P), ones(Int, P)           # of a tree for each group, and the signs between them
    for group in tie, k in group
        join!(parent, relation, group[1], k)
    end
    fixed = falses(P)
    for i in freeze
        1 <= i <= P || throw(ArgumentError("freeze names the parameter $i of $P"))
        fixed[i] = true
    end
    members, signs, c = [Int[] for _ in 1:P], zeros(T, P), zeros(T, P)
    for i in 1:P
        leader, signs[i] = lead(parent, relation, i)
        fixed[i] == fixed[leader] || throw(ArgumentError(
            "of the parameters $leader and $i, which are tied, only one is frozen: freeze both or none"))
        fixed[i] ? (c[i] = θ[i]) : push!(members[leader], i)
    end
    groups = filter(!isempty, members)
    isempty(groups) && throw(ArgumentError("all $P parameters are frozen: none is left to move"))
    rows = reduce(vcat, groups)
    return Constraint{T}(cumsum([1; length.(groups)]), rows, signs[rows], c)
end

"The first of a parameter's group, and the sign between them."
function lead(parent, relation, i::Int)
    sign = 1
    while parent[i] != i
        sign *= relation[i]
        i = parent[i]
    end
    return i, sign
end

"Tie two parameters and their groups together; a negative index means the opposite."
function join!(parent, relation, i::Integer, k::Integer)
    P = length(parent)
    for j in (i, k)
        1 <= abs(j) <= P || throw(ArgumentError("tie names the parameter $(abs(j)) of $P"))
    end
    (a, s), (b, t) = lead(parent, relation, abs(i)), lead(parent, relation, abs(k))
    between = s * t * sign(i) * sign(k)
    a == b && between < 0 && throw(ArgumentError("parameter $(abs(k)) (of 1 to $P) is tied to its own opposite: " *
                                                         "freeze it at zero instead"))
    a == b && return nothing
    parent[max(a, b)], relation[max(a, b)] = min(a, b), between
    return nothing
end

"The constraint of no parameter."
unconstrained(::Type{T}, P::Int) where {T} = Constraint{T}(collect(1:P+1), collect(1:P), ones(T, P), zeros(T, P))

n_params(C::Constraint) = length(C.c)
n_coordinates(C::Constraint) = length(C.first) - 1
column(C::Constraint, j::Int) = C.first[j]:C.first[j+1]-1
Base.show(io::IO, C::Constraint) =
    print(io, "Constraint of ", n_params(C), " parameters to ", n_coordinates(C), " coordinates")

"Whether no parameter depends on two coordinates, so that BᵀB is diagonal."
disjoint(C::Constraint) = allunique(C.rows)

function Base.Matrix(C::Constraint{T}) where {T}
    B = zeros(T, n_params(C), n_coordinates(C))
    for j in axes(B, 2), k in column(C, j)
        B[C.rows[k], j] += C.values[k]
    end
    return B
end

function check_rank(C::Constraint{T}) where {T}
    full = all(any(C.values[k] != 0 for k in column(C, j)) for j in 1:n_coordinates(C))
    if full && !disjoint(C)
        full = n_coordinates(C) <= n_params(C)
        sizes = full ? abs.(diag(qr(Matrix{Float64}(Matrix(C)), Val(true)).R)) : Float64[]
        full = full && minimum(sizes) > n_params(C) * eps(Float64) * maximum(sizes)
    end
    full || throw(ArgumentError("the columns of B are linearly dependent: several coordinates would be the same point"))
    return nothing
end

"θ += B z"
function add_image!(θ::Vector{T}, C::Constraint{T}, z::Vector{T}) where {T}
    @inbounds for j in eachindex(z)
        for k in column(C, j)
            θ[C.rows[k]] += C.values[k] * z[j]
        end
    end
    return θ
end

"θ = B z + c, into `θ`; `image!` is B z alone."
embed!(θ::Vector{T}, C::Constraint{T}, z::Vector{T}) where {T} = add_image!(copyto!(θ, C.c), C, z)
image!(v::Vector{T}, C::Constraint{T}, z::Vector{T}) where {T} = add_image!(fill!(v, zero(T)), C, z)
embed(C::Constraint, z) = embed!(similar(C.c), C, z)
image(C::Constraint, z) = image!(similar(C.c), C, z)

"g = Bᵀ v"
function pull_back!(g::Vector{T}, C::Constraint{T}, v::Vector{T}) where {T}
    @inbounds for j in eachindex(g)
        s = zero(T)
        for k in column(C, j)
            s += C.values[k] * v[C.rows[k]]
        end
        g[j] = s
    end
    return g
end

"Lower triangle of H += Bᵀ F B, for the symmetric matrix `F` and a buffer `w` of P numbers."
function add_congruence!(H::Matrix{T}, C::Constraint{T}, F::Matrix{T}, w::Vector{T}) where {T}
    n = size(H, 1)
    @inbounds for j in 1:n
        fill!(w, zero(T))
        for k in column(C, j)
            b, r = C.values[k], C.rows[k]
            @simd for i in eachindex(w)
                w[i] = muladd(b, F[i, r], w[i])
            end
        end
        for i in j:n
            s = zero(T)
            for k in column(C, i)
                s = muladd(C.values[k], w[C.rows[k]], s)
            end
            H[i, j] += s
        end
    end
    return H
end

"""
    coordinates(C::Constraint, θ) -> z

The coordinates of the nearest point to θ that the constraint allows: of θ itself, to the last bit where parameters are
only frozen or tied, if it is one.
"""
function coordinates(C::Constraint{T}, θ::AbstractVector) where {T}
    length(θ) == n_params(C) ||
        throw(DimensionMismatch("θ has $(length(θ)) entries, the constraint is one of $(n_params(C)) parameters"))
    return solve_coordinates(C, Vector{T}(θ) - C.c)
end

"The least-squares solution z of B z = d."
function solve_coordinates(C::Constraint{T}, d::Vector{T}) where {T}
    disjoint(C) || return Matrix(C) \ d
    z = zeros(T, n_coordinates(C))
    for j in eachindex(z)
        k = first(column(C, j))
        z[j] = d[C.rows[k]] / C.values[k]
        above = below = zero(T)                # by how much the others differ
        for k in column(C, j)
            above += C.values[k] * (d[C.rows[k]] - C.values[k] * z[j])
            below += C.values[k]^2
        end
        z[j] += above / below
    end
    return z
end

"The constraint with only the coordinates `free`; the others keep the values that they have in `z`."
function hold(C::Constraint{T}, free::Vector{Int}, z::Vector{T}) where {T}
    rest = copy(z)
    rest[free] .= 0
    entries = Int[k for j in free for k in column(C, j)]
    first = cumsum([1; Int[length(column(C, j)) for j in free]])
    return Constraint{T}(first, C.rows[entries], C.values[entries], embed(C, rest))
end
