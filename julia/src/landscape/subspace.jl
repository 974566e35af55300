# Lines, planes and what the loss does on them and across them.

"""
    LinearSubspace(origin, directions...)

The points origin + Σᵢ aᵢ directionᵢ: a line for one direction, a plane for two. Directions need not be orthogonal
or of unit length, so that the plane `LinearSubspace(p, q - p, r - p)` has its anchors at (0, 0), (1, 0) and (0, 1).
"""
struct LinearSubspace{T}
    origin::Vector{T}
    directions::Matrix{T}       # P × d
    complement::Matrix{T}       # P × (P − d), orthonormal
end

function LinearSubspace(origin::AbstractVector{T}, directions::AbstractVector...) where {T}
    P, d = length(origin), length(directions)
    0 < d < P || throw(ArgumentError("$d directions; 1 to $(P - 1) are possible with $P parameters"))
    all(v -> length(v) == P, directions) ||
        throw(DimensionMismatch("origin has $P entries, the directions $(join(length.(directions), ", "))"))
    D = Matrix{T}(undef, P, d)
    for (i, v) in enumerate(directions)
        D[:, i] = v
    end
    F = qr(D)
    smallest, largest = extrema(abs.(diag(F.R)))
    smallest > sqrt(eps(T)) * largest ||
        throw(ArgumentError("the directions are linearly dependent: they span no space of dimension $d"))
    return LinearSubspace{T}(collect(origin), D, (F.Q*Matrix{T}(I, P, P))[:, d+1:end])
end

Base.ndims(s::LinearSubspace) = size(s.directions, 2)
Base.show(io::IO, s::LinearSubspace) = print(io, "LinearSubspace of dimension ", ndims(s), " in ", length(s.origin))

"""
    point(subspace, a) -> θ

The point with coordinates `a`.
"""
function point(s::LinearSubspace, a)
    length(a) == ndims(s) || throw(DimensionMismatch("$(length(a)) coordinates in a subspace of dimension $(ndims(s))"))
    return s.origin + s.directions * convert(typeof(s.origin), collect(a))
end

"""
    coordinates(subspace, θ) -> a

Coordinates of the projection of θ.
"""
coordinates(s::LinearSubspace, θ) = s.directions \ (θ - s.origin)

"""
    Restricted(net, subspace, a)

The loss on all points that project to the coordinates `a`: a function of P − d numbers z, θ = point + complement z.
"""
mutable struct Restricted{T,N<:AbstractNet{T}} <: AbstractNet{T}
    net::N
    subspace::LinearSubspace{T}
    origin::Vector{T}
    θ::Vector{T}
    g::Vector{T}
    H::Matrix{T}
end
Restricted(net::AbstractNet{T}, s::LinearSubspace{T}, a) where {T} =
    Restricted(net, s, point(s, a), zeros(T, n_params(net)), zeros(T, n_params(net)), zeros(T, 0, 0))

n_params(r::Restricted) = size(r.subspace.complement, 2)
watch!(r::Restricted, monitor) = watch!(r.net, monitor)

function embed!(r::Restricted, z)
    mul!(r.θ, r.subspace.complement, z)
    r.θ .+= r.origin
    return r.θ
end
loss(r::Restricted, z) = loss(r.net, embed!(r, z))
function value_and_gradient!(g::Vector, r::Restricted, z)
    value = value_and_gradient!(r.g, r.net, embed!(r, z))
    mul!(g, r.subspace.complement', r.g)
    return value
end
function hessian!(H::Matrix, r::Restricted{T}, z) where {T}
    isempty(r.H) && (r.H = zeros(T, length(r.θ), length(r.θ)))
    hessian!(r.H, r.net, embed!(r, z))
    B = r.subspace.complement
    mul!(H, B', r.H * B)
    for j in axes(H, 2), i in 1:j-1
        H[i, j] = H[j, i] = (H[i, j] + H[j, i]) / 2
    end
    return H
end
function hvp!(y::Vector, r::Restricted, z, v)
    B = r.subspace.complement
    mul!(y, B', hvp(r.net, embed!(r, z), B * v))
    return y
end

"""
    subspace_minloss(net, subspace, a, start = point(subspace, a); options...) -> MinimizeResult

Minimise the loss over all points that project to the coordinates `a` of the subspace, from the one of them that is
nearest to `start`. `options` are those of [`minimize`](@ref). `x` has P entries; `gnorm` is of the gradient within
the complement, in an orthonormal basis of it.
"""
subspace_minloss(net::AbstractNet, s::LinearSubspace, a, start=nothing; monitor::Monitor=Monitor(), options...) =
    subspace_minloss(net, s, a, start, MinimizeOptions(; options...), monitor)

function subspace_minloss(net::AbstractNet, s::LinearSubspace, a, start, options::MinimizeOptions, monitor::Monitor)
    r = Restricted(net, s, a)
    z0 = start === nothing ? zeros(eltype(s.origin), n_params(r)) : s.complement' * (start - r.origin)
    m = minimize(r, z0, options, monitor)
    return changed(m; x=copy(embed!(r, m.x)))
end

"""
    SubspaceGrid

Losses, gradient norms and points (P first) of [`loss_grid`](@ref) or [`subspace_grid`](@ref), with one dimension a
direction; `finished` is false when it was interrupted, and what had not been reached is NaN.
"""
struct SubspaceGrid{T,M,K}
    loss::Array{T,M}
    gnorm::Array{T,M}
    x::Array{T,K}
    finished::Bool
end

"""
    loss_grid(net, subspace, axes...) -> Array

The loss at the grid points of a line or plane: one vector of coordinates for each direction.
"""
function loss_grid(net::AbstractNet, s::LinearSubspace, axes...)
    check_axes(s, axes)
    return [loss(net, point(s, collect(a))) for a in Iterators.product(axes...)]
end

check_axes(s, axes) = length(axes) == ndims(s) && !any(isempty, axes) ? nothing :
    throw(ArgumentError("$(length(axes)) axes for a subspace of dimension $(ndims(s)); one vector of coordinates for " *
                        "each is needed"))

"""
    subspace_grid(net, subspace, axes...; start = nothing, options...) -> SubspaceGrid

[`subspace_minloss`](@ref) at every point of a grid. A point is tried from `start` and from the minima found at the
grid points before it; the lowest counts. `options` are those of `minimize`, `maxtime` for each search.
"""
subspace_grid(net::AbstractNet, s::LinearSubspace, axes...; start=nothing, monitor::Monitor=Monitor(), options...) =
    search_grid(net, s, axes, start, MinimizeOptions(; options...), monitor)

function search_grid(net::AbstractNet{T}, s::LinearSubspace{T}, axes, start, options::MinimizeOptions,
                     monitor::Monitor) where {T}
    check_axes(s, axes)
    shape = Tuple(length.(axes))
    P = length(s.origin)
    values, gnorms, points = fill(T(NaN), shape), fill(T(NaN), shape), fill(T(NaN), P, shape...)
    for I in CartesianIndices(shape)
        a = [axes[d][I[d]] for d in 1:ndims(s)]
        starts = Any[start]
        for d in 1:ndims(s)
            I[d] > 1 && push!(starts, points[:, CartesianIndex(ntuple(e -> I[e] - (e == d), ndims(s)))])
        end
        for from in starts
            m = subspace_minloss(net, s, a, from, options, monitor)
            values[I] <= m.loss || (values[I] = m.loss; gnorms[I] = m.gnorm; points[:, I] = m.x)
            m.stopped_by in (Stop.interrupted, Stop.callback) && return SubspaceGrid(values, gnorms, points, false)
        end
    end
    return SubspaceGrid(values, gnorms, points, true)
end
