# What kind of point a constrained net is at: reasons in the parameters, as far as the constraint lets them move.

"The direction in coordinates that moves the parameters along `e`, or nothing where the constraint does not allow that."
function coordinate_direction(r::ConstrainedNet, e::Vector)
    C = Constraint{Float64}(r.constraint)
    v = Vector{Float64}(e)
    d = solve_coordinates(C, v)
    return norm(image(C, d) - v) <= 1e-6 * norm(v) ? d : nothing
end

"Those of the `reasons` that coordinates can move along."
function reachable(r::ConstrainedNet, reasons::Vector{Invariance})
    found = Invariance[]
    for reason in reasons
        directions = filter(!isnothing, [coordinate_direction(r, e) for e in reason.directions])
        isempty(directions) || push!(found, Invariance(reason.label, reason.layer, reason.units, directions))
    end
    return found
end

invariances(r::ConstrainedNet{T}, z) where {T} = reachable(r, invariances(r.net, embed(r.constraint, Vector{T}(z))))

function roads_to_infinity(r::ConstrainedNet, z, N::Matrix{Float64})
    null = Matrix(qr(Matrix(Constraint{Float64}(r.constraint)) * N).Q)
    return reachable(r, roads_to_infinity(r.net, copy(embed!(r, z)), null))
end

"Parameters of the net without its constraint from its own, and back."
parameters_from(::Net, x) = x
parameters_from(r::ConstrainedNet, z) = embed(r.constraint, z)
parameters_within(::Net, θ) = θ
parameters_within(r::ConstrainedNet, θ) = coordinates(r.constraint, θ)

"The parameters that are coordinates of their own."
function free_parameters(C::Constraint)
    alone = [C.rows[first(column(C, j))] for j in 1:n_coordinates(C) if length(column(C, j)) == 1]
    return disjoint(C) ? alone : filter(i -> count(==(i), C.rows) == 1, alone)
end

"""
    rewired(C, source) -> C′

The constraint of parameters that are copies of those of `C`, as [`rewire`](@ref) has them; those from nowhere are free.
"""
function rewired(C::Constraint{T}, source::Vector{Int}) where {T}
    places = Dict(i => n for (n, i) in enumerate(source) if i > 0)
    columns = [[(places[C.rows[k]], C.values[k]) for k in column(C, j) if haskey(places, C.rows[k])]
               for j in 1:n_coordinates(C)]
    append!(columns, [[(n, one(T))] for (n, i) in enumerate(source) if i == 0])
    return constraint_of_columns(columns, T[i == 0 ? 0 : C.c[i] for i in source])
end

"A constraint from lists of the entries of its columns, in the order in which those have their first entries."
function constraint_of_columns(columns, c::Vector{T}) where {T}
    columns = sort!(filter(!isempty, columns); by=entries -> minimum(first.(entries)))
    entries = reduce(vcat, columns; init=Tuple{Int,T}[])
    return Constraint{T}(cumsum([1; length.(columns)]), first.(entries), last.(entries), c)
end

"""
    split_constraint(C, layers, l, i) -> C′

The constraint of the net in which unit `i` of layer `l` is split in two, the copy last: it holds of the incoming
weights of both, and of the sum of their outgoing weights.
"""
function split_constraint(C::Constraint{T}, layers::Vector{Layer}, l::Int, i::Int) where {T}
    wide, source = rewire(layers, l, [1:layers[l].width; i])
    copies, into, out = [Int[] for _ in 1:n_params(C)], incoming(layers[l], i), outgoing(layers[l+1], i)
    for (n, old) in enumerate(source)
        push!(copies[old], n)
    end
    free, columns = Set(free_parameters(C)), Vector{Tuple{Int,T}}[]
    for j in 1:n_coordinates(C)
        i = C.rows[first(column(C, j))]
        if i in free            # a coordinate for each of the two
            append!(columns, [[(n, C.values[first(column(C, j))])] for n in copies[i]])
        else
            push!(columns, [(n, C.values[k]) for k in column(C, j)
                            for n in (C.rows[k] in into ? copies[C.rows[k]] : copies[C.rows[k]][1:1])])
        end
    end
    append!(columns, [[(copies[o][1], one(T)), (copies[o][2], -one(T))] for o in out if !(o in free)])
    c = T[o in out && n != copies[o][1] ? 0 : C.c[o] for (n, o) in enumerate(source)]
    return wide, constraint_of_columns(columns, c)
end

layers_in(net::Net) = net.layers
layers_in(net::InfiniteNet) = net.student.layers
layers_in(r::ConstrainedNet) = layers_in(r.net)

accuracy(r::ConstrainedNet) = accuracy(r.net)
loss_scale(r::ConstrainedNet, z) = loss_scale(r.net, copy(embed!(r, z)))
interpolated_equations(r::ConstrainedNet, z) = interpolated_equations(r.net, copy(embed!(r, z)))
length_of_layers(r::ConstrainedNet) = length_of_layers(r.net)
unregularised(r::ConstrainedNet) = unregularised(r.net)

function separates(r::ConstrainedNet, z)
    θ = copy(embed!(r, z))
    return separates(r.net, θ) && coordinate_direction(r, output_direction(r.net, θ)) !== nothing
end
function output_direction(r::ConstrainedNet{T}, z) where {T}
    d = coordinate_direction(r, output_direction(r.net, copy(embed!(r, z))))
    return Vector{T}(d / norm(d))
end

"A classification of the coordinates with its direction in the parameters."
function lifted(c::Classification{T}, C::Constraint{T}) where {T}
    direction = isempty(c.direction) ? c.direction : normalize(image(C, c.direction))
    return Classification{T}(c.kind, c.index, c.nullity, c.loss, c.gnorm, c.eigenvalues, c.tolerance,
                             c.gradient_tolerance, c.displacement, c.displacement_tolerance, c.explanations,
                             c.unexplained, direction)
end

with_number_type(::Type{S}, r::ConstrainedNet) where {S<:AbstractFloat} =
    ConstrainedNet(with_number_type(S, r.net), Constraint{S}(r.constraint))

lifted(r::Polished, C::Constraint) =
    Polished(embed(Constraint{BigFloat}(C), r.x), r.loss, r.gnorm, r.iterations, r.converged, r.stopped_by,
                 r.total_time)
